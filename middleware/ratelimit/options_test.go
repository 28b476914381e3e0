package ratelimit

import (
	"strings"
	"testing"
	"time"

	"gateway/internal/unit"
)

func TestCheckNamesWhatDoesNotFit(t *testing.T) {
	f := func(change func(o *Options), want string) {
		t.Helper()
		o := options(t, "10/s", 0)
		change(&o)
		var got []string
		o.Check(func(key, problem string) { got = append(got, key+": "+problem) })
		if text := strings.Join(got, "|"); want == "" && text != "" || !strings.Contains(text, want) {
			t.Errorf("%q; want %q", text, want)
		}
	}
	f(func(o *Options) {}, "")
	f(func(o *Options) { o.Rate = unit.Rate{} }, ": limits nothing")
	f(func(o *Options) { o.Concurrency = 1 }, ": rate and concurrency are policies of their own")
	f(func(o *Options) { o.Rate, o.Concurrency = unit.Rate{}, 1 }, "")
	f(func(o *Options) { o.Rate, o.Concurrency, o.Store = unit.Rate{}, 1, "redis" }, "store: has no meaning together with concurrency")
	f(func(o *Options) { o.Rate, o.Bandwidth, o.Delay = unit.Rate{}, 1, 1 }, "delay: has no meaning together with bandwidth")
	f(func(o *Options) { o.Rate, o.Bandwidth, o.DryRun = unit.Rate{}, 1, true }, "dry_run: ")
	f(func(o *Options) { o.Rate.Count = 100_000_001 }, "rate: 100000001/s is out of range")
	f(func(o *Options) { o.Rate = unit.Rate{Count: 1, Per: 24 * time.Hour}; o.Burst = 366 }, "burst: 366 takes longer than a year")
	f(func(o *Options) { o.Rate = unit.Rate{Count: 1, Per: 24 * time.Hour}; o.Burst = 1_000_000_000 }, "burst: ")
	f(func(o *Options) { o.Store, o.Delay = "redis", time.Second }, "delay: ")
	f(func(o *Options) { o.Store, o.Delay = "redis-strict", time.Second }, "")
	f(func(o *Options) { o.Key = nil }, "key: no key")
	f(func(o *Options) { o.Cost = map[string]int{"GET": 11} }, "cost.GET: 11 is out of range; want 0 to the burst, which is 10")
	f(func(o *Options) { o.Cost = map[string]int{"G T": 1} }, `cost.G T: "G T" is no method`)
	f(func(o *Options) { o.CostHeader = "a b" }, "cost_header: ")
}

func TestBurstIsASecondsWorthUnlessItIsGiven(t *testing.T) {
	f := func(rate string, burst int, want int64) {
		t.Helper()
		if o := options(t, rate, burst); o.burst() != want {
			t.Errorf("%s, %d: %d, want %d", rate, burst, o.burst(), want)
		}
	}
	f("100/s", 0, 100)
	f("100/s", 5, 5)
	f("1000000/s", 1_000_000, 1_000_000)
	f("1/m", 0, 1)
	f("600/m", 0, 10)
	f("100/d", 0, 1)
}

func TestParseSource(t *testing.T) {
	for _, text := range []string{"ip", "path", "route", "global", "header:X-Api-Key", "cookie:sid", "query:k", "jwt:sub", "jwt:https://a/b"} {
		if s, err := ParseSource(text); err != nil || s.String() != text {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "IP", "ip:", "ip:x", "header", "header:", "header:a b", "cookie:a;b", "query:", "jwt:", "x:y", "query:a b", "header:a:b"} {
		if s, err := ParseSource(text); err == nil {
			t.Errorf("%q is accepted as %v", text, s)
		}
	}
}

func FuzzParseSource(f *testing.F) {
	for _, text := range []string{"ip", "header:X-Api-Key", "cookie:a", "query:\xff", "jwt:a:b", ":"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSource(text)
		if err == nil && s.String() != text {
			t.Fatalf("%q is read as %v", text, s)
		}
	})
}

// FuzzRate makes a policy of whatever is accepted and takes of it: a second
// after it was emptied it has what the rate gives, never more than the burst.
func FuzzRate(f *testing.F) {
	f.Add("100/s", 0)
	f.Add("1/m", 3)
	f.Add("100000000/s", 1)
	f.Add("1/d", 365)
	f.Add("7/h", 1_000)
	f.Fuzz(func(t *testing.T, rate string, burst int) {
		r, err := unit.ParseRate(rate)
		if err != nil || burst < 0 || burst > 1_000_000_000 {
			return
		}
		o := Options{Rate: r, Burst: burst, Key: []Source{{}}, Store: "local", MaxKeys: 64}
		fits := true
		o.Check(func(string, string) { fits = false })
		if !fits {
			return
		}
		table := bucketsOf(&o)
		cost, window := o.scale()
		now := units(int64(time.Hour))
		if v := table.take(1, now, window, 0); !v.Allowed || v.Left != 0 {
			t.Fatalf("%s, burst %d: %+v", rate, burst, v)
		}
		if v := table.take(1, now, cost, 0); v.Allowed || v.Wait <= 0 {
			t.Fatalf("%s, burst %d, empty: %+v", rate, burst, v)
		}
		now += second
		v := table.peek(1, now, 0, 0)
		exact := float64(r.Count) / r.Per.Seconds()
		if want := min(exact, float64(o.burst())); float64(v.Left) > want*1.01+1 || float64(v.Left) < want*0.99-1 {
			t.Fatalf("%s, burst %d: %d left after a second, want %.2f", rate, burst, v.Left, want)
		}
	})
}
