package health

import "testing"

// Each letter is a check that passed (p) or failed (f), and the state after it.
func TestRiseAndFall(t *testing.T) {
	f := func(fails, passes int, checks, want string) {
		t.Helper()
		var checker Checker
		got := ""
		for _, c := range checks {
			got += checker.Next(c == 'p', fails, passes).String()[:1]
		}
		if got != want {
			t.Errorf("%d fails, %d passes: after %s it is %s, want %s", fails, passes, checks, got, want)
		}
	}
	f(3, 2, "p", "u") // the first check decides alone
	f(3, 2, "f", "d")
	f(3, 2, "pffpfff", "uuuuuud")
	f(3, 2, "fpfpp", "ddddu")
	f(1, 1, "pfpf", "udud")
	if s := new(Checker).State; s != Unknown || s.String() != "unknown" {
		t.Errorf("before the first check it is %v", s)
	}
}
