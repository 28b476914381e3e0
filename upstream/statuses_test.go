package upstream

import (
	"fmt"
	"testing"
)

func formatted(v any) string { return fmt.Sprint(v) }

func TestStatuses(t *testing.T) {
	f := func(in, want string, has, hasNot int) {
		t.Helper()
		var s Statuses
		if err := s.UnmarshalText([]byte(in)); err != nil {
			t.Errorf("%q: %v", in, err)
			return
		}
		if s.String() != want || !s.Has(has) || s.Has(hasNot) {
			t.Errorf("%q: %v (want %s), has %d: %v, has %d: %v", in, s, want, has, s.Has(has), hasNot, s.Has(hasNot))
		}
	}
	f("200-399", "200-399", 399, 400)
	f("204", "204", 204, 200)
	f(" 401, 200-299 ,300-301", "200-301,401", 401, 302)
	f("100-599", "100-599", 599, 600)
	f("100", "100", 100, 99)

	for _, in := range []string{"", "20", "600", "099", "200-", "-200", "300-200", "2xx", "200,", "+20", "200--299"} {
		var s Statuses
		if err := s.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q: %v, want an error", in, s)
		}
	}
}

func FuzzStatuses(f *testing.F) {
	for _, s := range []string{"200-399", "204,301-303", "100-599", ",", "200-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var s, again Statuses
		if s.UnmarshalText([]byte(in)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%q: %v reads back as %v, %v", in, s, again, err)
		}
	})
}
