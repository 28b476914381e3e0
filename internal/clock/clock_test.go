package clock

import (
	"bytes"
	"context"
	"net/http"
	"testing"
	"time"
)

// within polls until ok, for at most five seconds.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func TestCoarseFollowsMono(t *testing.T) {
	Coarse()
	within(t, "the clock woke", func() bool { return coarse.Load() != 0 })
	for range 3 {
		before := Mono()
		within(t, "the coarse clock passed an exact reading", func() bool { return Coarse() > before })
		if c := Coarse(); c > Mono() {
			t.Fatalf("coarse clock is ahead: %d", c)
		}
	}
}

func TestUnusedClockSleepsAndIsRightWhenAskedAgain(t *testing.T) {
	Coarse()
	within(t, "the clock woke", func() bool { return coarse.Load() != 0 })
	within(t, "the clock went to sleep", func() bool { return coarse.Load() == 0 })
	before := time.Now()
	if got := Wall(); got.Before(before.Add(-time.Millisecond)) || got.After(time.Now().Add(time.Millisecond)) {
		t.Errorf("a sleeping clock says %v at %v", got, before)
	}
	within(t, "the clock woke again", func() bool { return coarse.Load() != 0 })
}

func TestTimesOfMonoAreThoseOfNow(t *testing.T) {
	before, mono, after := time.Now(), Mono(), time.Now()
	if got := TimeAt(mono); got.Before(before) || got.After(after) || At(got) != mono {
		t.Errorf("TimeAt gives %v, not between %v and %v; At gives %d for %d", got, before, after, At(got), mono)
	}
}

func TestWallClockForms(t *testing.T) {
	within(t, "all forms agree within a second", func() bool {
		now := time.Now()
		date, err := http.ParseTime(string(HTTPDate()))
		if err != nil {
			t.Fatal(err)
		}
		off := func(d time.Duration) bool { return d < -2*time.Second || d > 2*time.Second }
		return !off(now.Sub(date)) && !off(now.Sub(Wall())) && !off(now.Sub(time.Unix(Unix(), 0))) && !off(now.Sub(WallAt(Mono())))
	})
	if Wall().Location() != time.UTC {
		t.Error("Wall is not UTC")
	}
}

func TestHTTPDateIsFixdate(t *testing.T) {
	if got := newStamps(784111777).http; string(got[:]) != "Sun, 06 Nov 1994 08:49:37 GMT" {
		t.Errorf("got %q", got)
	}
	Coarse()
	within(t, "the clock woke", func() bool { return coarse.Load() != 0 })
	old := HTTPDate()
	kept := bytes.Clone(old)
	within(t, "the next second", func() bool { return !bytes.Equal(HTTPDate(), kept) })
	if !bytes.Equal(old, kept) {
		t.Error("bytes that a reader holds have changed")
	}
}

func TestAppendRFC3339(t *testing.T) {
	f := func(nano int64, want string) {
		t.Helper()
		if got := string(AppendRFC3339([]byte(">"), nano)); got != ">"+want {
			t.Errorf("AppendRFC3339(%d) = %q; want %q", nano, got, want)
		}
	}
	f(784111777_123_999_999, "1994-11-06T08:49:37.123Z")
	f(0, "1970-01-01T00:00:00.000Z")
	f(-1, "1969-12-31T23:59:59.999Z")
	now := time.Now()
	f(now.UnixNano(), now.UTC().Format("2006-01-02T15:04:05.000Z"))
}

func BenchmarkMono(b *testing.B) {
	for b.Loop() {
		Mono()
	}
}

func BenchmarkCoarse(b *testing.B) {
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			Coarse()
		}
	})
}

func BenchmarkAppendRFC3339(b *testing.B) {
	buf := make([]byte, 0, 64)
	for b.Loop() {
		buf = AppendRFC3339(buf[:0], time.Now().UnixNano())
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	if !Sleep(ctx, time.Millisecond) {
		t.Error("the whole time: false")
	}
	time.AfterFunc(10*time.Millisecond, cancel)
	if Sleep(ctx, time.Hour) {
		t.Error("cut short: true")
	}
}
