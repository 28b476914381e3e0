package upstream

import (
	"testing"
	"time"
)

func TestRetryCauses(t *testing.T) {
	for text, ok := range map[string]bool{
		"connect": true, "reset": true, "timeout": true, "400": true, "503": true, "599": true,
		"": false, "399": false, "600": false, "5xx": false, "1": false, "-503": false, "Reset": false,
	} {
		var c RetryCause
		err := c.UnmarshalText([]byte(text))
		if (err == nil) != ok || ok && c.String() != text {
			t.Errorf("%q: %v, %v", text, c, err)
		}
	}
	o := RetryOptions{On: []RetryCause{RetryReset, 503}}
	r := o.Causes()
	for outcome := range OutcomeCount {
		if want := outcome == Reset || outcome == Stale; r.Outcome(outcome) != want {
			t.Errorf("%v is repeated: %v", outcome, !want)
		}
	}
	if !r.Status(503) || r.Status(502) || r.Status(200) {
		t.Error("the wrong statuses are repeated")
	}
	if r := new(RetryOptions).Causes(); r.Outcome(Reset) || r.Status(503) {
		t.Error("something is repeated without a cause")
	}
}

func TestPausesGrowUpToTenTimesTheBackoff(t *testing.T) {
	o := RetryOptions{Backoff: 10 * time.Millisecond}
	for made, most := range []time.Duration{0, 0, 10, 20, 40, 80, 100, 100} {
		most *= time.Millisecond
		var longest time.Duration
		for range 1000 {
			longest = max(longest, o.Pause(made))
		}
		if longest > most || longest < most*9/10 {
			t.Errorf("after %d attempts up to %v, want %v", made, longest, most)
		}
	}
	if (&RetryOptions{}).Pause(5) != 0 {
		t.Error("a pause without backoff")
	}
}
