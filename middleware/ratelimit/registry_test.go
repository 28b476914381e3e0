package ratelimit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gateway/internal/clock"
	"gateway/internal/unit"
)

func TestBucketsSurviveAConfiguration(t *testing.T) {
	r := newTestRegistry(t)
	o := options(t, "1/m", 10)
	left := func(l *Limiter, value string) int64 {
		k := l.Key(0, []byte(value))
		return l.Peek(&k, 0, clock.Mono()).Left
	}
	take := func(l *Limiter, value string, n int64) {
		t.Helper()
		k := l.Key(0, []byte(value))
		if v := l.Take(&k, n, clock.Mono()); !v.Allowed {
			t.Fatalf("%+v", v)
		}
	}
	first := build(t, r, map[string]Options{"a": o, "b": o}, RedisOptions{})
	take(first.Limiter("a"), "x", 7)
	take(first.Limiter("b"), "x", 2)

	o.Announce = true
	same := build(t, r, map[string]Options{"a": o}, RedisOptions{})
	if n := left(same.Limiter("a"), "x"); n != 3 {
		t.Errorf("%d left after a reload, want 3", n)
	}
	o.Rate.Count = 1000
	o.Burst = 20
	faster := build(t, r, map[string]Options{"a": o}, RedisOptions{})
	if n := left(faster.Limiter("a"), "x"); n != 13 && n != 14 {
		t.Errorf("%d left after a change of rate and burst, want 13", n)
	}
	o.MaxKeys *= 2
	bigger := build(t, r, map[string]Options{"a": o}, RedisOptions{})
	if n := left(bigger.Limiter("a"), "x"); n < 13 || n > 15 {
		t.Errorf("%d left after a change of max_keys, want 13", n)
	}
	o.Key = []Source{{Kind: ByHeader, Name: "A"}}
	other := build(t, r, map[string]Options{"a": o}, RedisOptions{})
	if n := left(other.Limiter("a"), "x"); n != 20 {
		t.Errorf("%d left with another key, want 20", n)
	}
}

func TestABuiltSetChangesNothingBeforeItIsCommitted(t *testing.T) {
	r := newTestRegistry(t)
	o := options(t, "1/m", 2)
	set := build(t, r, map[string]Options{"a": o}, RedisOptions{})
	o.Burst = 100
	dropped, err := r.Build(map[string]Options{"a": o, "b": o}, RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dropped.Close()
	l := set.Limiter("a")
	k := l.Key(0, nil)
	if v := l.Take(&k, 3, clock.Mono()); v.Allowed {
		t.Error("the burst of a configuration that was dropped is in effect")
	}
	o.Store = "redis"
	if _, err := r.Build(map[string]Options{"a": o}, RedisOptions{}); err == nil || !strings.Contains(err.Error(), "redis.url") {
		t.Errorf("without an address of Redis: %v", err)
	}
}

func TestPlacesAreCountedAKey(t *testing.T) {
	o := options(t, "1/s", 0)
	o.Rate, o.Concurrency = unit.Rate{}, 2
	l := build(t, newTestRegistry(t), map[string]Options{"a": o}, RedisOptions{}).Limiter("a")
	x, y := l.Key(0, []byte("x")), l.Key(0, []byte("y"))
	var tickets [3]Ticket
	take := func(i int, k Key, want bool) {
		t.Helper()
		v := l.Take(&k, 1, clock.Mono())
		if v.Allowed != want {
			t.Errorf("%+v, want %v", v, want)
		}
		tickets[i].Add(Taken{Limiter: l, Key: k, Cost: 1, Verdict: v})
	}
	take(0, x, true)
	take(1, x, true)
	take(2, x, false)
	take(2, y, true)
	tickets[0].Release()
	tickets[0].Release() // no second place
	tickets[0].Reset()
	take(0, x, true)
	take(2, x, false)
	tickets[2].Reset() // gives back only what was taken
	take(2, x, false)
	if n := l.keys(); n != 1 {
		t.Errorf("%d keys hold places, want 1", n)
	}
	tickets[0].Reset()
	tickets[1].Reset()
	if n := l.keys(); n != 0 {
		t.Errorf("%d keys hold places, want 0", n)
	}
}

func TestPaceGivesTheBandwidth(t *testing.T) {
	for _, bandwidth := range []unit.Size{1000, 1 << 20, 700_000_001, 1 << 30} {
		o := options(t, "1/s", 0)
		o.Rate, o.Bandwidth = unit.Rate{}, bandwidth
		l := build(t, newTestRegistry(t), map[string]Options{fmt.Sprint("a", int(bandwidth)): o}, RedisOptions{}).Limiter(fmt.Sprint("a", int(bandwidth)))
		k := l.Key(0, nil)
		start := int64(time.Hour)
		now, sent := start, 0
		for now < start+int64(10*time.Second) {
			piece := int(bandwidth) / 37
			sent += piece
			now += l.Pace(&k, piece, now)
		}
		want := float64(bandwidth) * (time.Duration(now-start).Seconds() + 1.0/paceShare)
		if got := float64(sent); got > want*1.001 || got < want*0.95 {
			t.Errorf("%d/s: %d bytes in %v, want %.0f", bandwidth, sent, time.Duration(now-start), want)
		}
	}
}

func TestMetrics(t *testing.T) {
	r := newTestRegistry(t)
	o := options(t, "1/m", 1)
	set := build(t, r, map[string]Options{"api": o}, RedisOptions{})
	l := set.Limiter("api")
	k := l.Key(0, nil)
	v := l.Take(&k, 1, clock.Mono())
	l.Count(Allowed, &v)
	v = l.Take(&k, 1, clock.Mono())
	l.Count(Denied, &v)
	text := r.metrics.String()
	for _, want := range []string{
		`gateway_limit_decisions_total{policy="api",decision="allowed",store="local"} 1`,
		`gateway_limit_decisions_total{policy="api",decision="denied",store="local"} 1`,
		`gateway_limit_keys{policy="api"} 1`,
		`gateway_limit_leased_tokens{policy="api"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s in\n%s", want, text)
		}
	}
	build(t, r, nil, RedisOptions{})
	if text := r.metrics.String(); strings.Contains(text, `policy="api"`) {
		t.Error("a policy that is gone is still counted")
	}
}

func TestFields(t *testing.T) {
	o := options(t, "100/s", 50)
	places := options(t, "1/s", 0)
	places.Rate, places.Concurrency = unit.Rate{}, 5
	set := build(t, newTestRegistry(t), map[string]Options{"api": o, "places": places}, RedisOptions{})
	f := func(got []byte, want string) {
		t.Helper()
		if string(got) != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	api := set.Limiter("api")
	f(api.AppendPolicy(nil), `"api";q=100;w=1`)
	f(api.AppendState(nil, &Verdict{Allowed: true, Left: 50, Reset: 1}), `"api";r=50;t=1`)
	f(api.AppendState(nil, &Verdict{Allowed: true, Left: 500, Reset: 0}), `"api";r=100;t=0`)
	f(api.AppendState(nil, &Verdict{Left: 3, Wait: 1_000_000_001, Reset: 5e9}), `"api";r=0;t=2`)
	f(set.Limiter("places").AppendPolicy(nil), `"places";q=5;qu="concurrent-requests"`)
	f(set.Limiter("places").AppendState(nil, &Verdict{Allowed: true, Left: 2}), `"places";r=2`)
	if n := api.RetryAfter(&Verdict{Wait: 1}); n != 1 {
		t.Errorf("Retry-After %d", n)
	}
}
