package upstream

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/mallocs"
)

// policies are all values of balance.
var policies = []string{"round_robin", "least_conn", "p2c", "peak_ewma", "hash"}

// build gives a pool of a registry that both end with the test.
func build(t testing.TB, o *Options) *Pool {
	t.Helper()
	r := NewRegistry(RegistryOptions{})
	p, err := r.Build(context.Background(), "test", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		r.Close()
	})
	return p
}

// weighted are options for servers 127.0.0.1 to 127.0.0.n of these weights.
func weighted(balance string, weights ...int) *Options {
	o := defaults()
	o.Balance = balance
	for i, w := range weights {
		o.Servers = append(o.Servers, ServerOptions{Address: fmt.Sprintf("127.0.%d.%d:80", i/250, i%250+1), Weight: w})
	}
	return o
}

// letter names the n-th server of weighted: a, b, c, …
func letter(s *Server) string {
	return string("abcdefghijklmnopqrstuvwxyz"[int(s.entry.target.addr.As4()[3])-1])
}

// picks is the letters of n picks in turn, ended at once or kept in flight.
func picks(t testing.TB, p *Pool, n int, keep bool) string {
	t.Helper()
	var b strings.Builder
	for range n {
		s, verdict := p.Pick(new(Tried))
		if s == nil {
			t.Fatalf("no server: %v", verdict)
		}
		b.WriteString(letter(s))
		if !keep {
			s.Done(Result{Outcome: OK, Status: 200})
		}
	}
	return b.String()
}

func TestWeightedRoundRobinInterleavesExactly(t *testing.T) {
	if got, want := picks(t, build(t, weighted("round_robin", 5, 1, 1)), 21, false), "aabacaaaabacaaaabacaa"; got != want {
		t.Errorf("5:1:1 gave %s, want %s", got, want)
	}
	if got, want := picks(t, build(t, weighted("round_robin", 1, 1, 1)), 7, false), "abcabca"; got != want {
		t.Errorf("1:1:1 gave %s, want %s", got, want)
	}
}

func TestSequence(t *testing.T) {
	f := func(want string, weights ...int) {
		t.Helper()
		if got := fmt.Sprint(sequence(weights)); got != want {
			t.Errorf("%v: %v, want %v", weights, got, want)
		}
	}
	f("[0]", 7)
	f("[0 1]", 300, 300)
	f("[0 0 1 0 2 0 0]", 5, 1, 1)
	f("[0 0 1 0 2 0 0]", 500, 100, 100)
	f("[0 1 0]", 2, 1)
}

func TestSequenceIsBounded(t *testing.T) {
	weights := make([]int, 2000)
	for i := range weights {
		weights[i] = 1 + i%1000
	}
	order := sequence(weights)
	if len(order) > 2*maxSequence {
		t.Errorf("%d turns, want about %d", len(order), maxSequence)
	}
	count := make([]int, len(weights))
	for _, i := range order {
		count[i]++
	}
	for i, n := range count {
		if n == 0 {
			t.Fatalf("server %d of weight %d has no turn", i, weights[i])
		}
	}
	if order := sequence([]int{1000, 999, 998, 997, 996}); len(order) < 4000 || len(order) > 5000 {
		t.Errorf("%d turns for weights around 1000, want about %d", len(order), maxSequence)
	}
}

func TestSharesFollowWeights(t *testing.T) {
	for _, balance := range []string{"round_robin", "least_conn"} {
		t.Run(balance, func(t *testing.T) {
			got := picks(t, build(t, weighted(balance, 3, 2, 1)), 6000, false)
			for i, want := range []int{3000, 2000, 1000} {
				if n := strings.Count(got, string("abc"[i])); n != want {
					t.Errorf("server %c: %d picks, want %d", "abc"[i], n, want)
				}
			}
		})
	}
}

func TestLeastConnFollowsLoadPerWeight(t *testing.T) {
	p := build(t, weighted("least_conn", 2, 1, 1))
	picks(t, p, 400, true)
	for i, want := range []int{200, 100, 100} {
		if n := p.Servers()[i].InFlight(); n != int64(want) {
			t.Errorf("server %c: %d in flight, want %d", "abc"[i], n, want)
		}
	}
	// One that becomes idle gets everything until it has caught up.
	for range 50 {
		p.Servers()[1].Done(Result{Outcome: OK})
	}
	if got := picks(t, p, 50, true); strings.Count(got, "b") != 50 {
		t.Errorf("after b became idle: %s", got)
	}
}

func TestLeastConnTiesTakeTurns(t *testing.T) {
	if got, want := picks(t, build(t, weighted("least_conn", 1, 1, 1)), 7, false), "abcabca"; got != want {
		t.Errorf("idle servers gave %s, want %s", got, want)
	}
}

func TestNoServerIsTriedTwice(t *testing.T) {
	for _, balance := range policies {
		t.Run(balance, func(t *testing.T) {
			p := build(t, weighted(balance, 5, 1, 1, 3))
			for range 100 {
				var tried Tried
				seen := ""
				for range 4 {
					s, verdict := p.Pick(&tried)
					if s == nil || strings.Contains(seen, letter(s)) {
						t.Fatalf("after %q: %v, verdict %d", seen, s, verdict)
					}
					seen += letter(s)
					tried.Add(s)
					s.Done(Result{Outcome: ConnectRefused})
				}
				if s, verdict := p.Pick(&tried); s != nil || verdict != AllTried {
					t.Fatalf("after all: %v, verdict %d", s, verdict)
				}
			}
		})
	}
}

func TestFullServersArePassedOver(t *testing.T) {
	for _, balance := range policies {
		t.Run(balance, func(t *testing.T) {
			o := weighted(balance, 1, 1, 1)
			o.MaxConnections = 2
			o.Servers[0].MaxConnections = 1
			p := build(t, o)
			if got := picks(t, p, 5, true); strings.Count(got, "a") != 1 || strings.Count(got, "b") != 2 {
				t.Errorf("picks are %s, want one a, two b, two c", got)
			}
			if s, verdict := p.Pick(new(Tried)); s != nil || verdict != AllFull {
				t.Errorf("%v, verdict %d; want AllFull", s, verdict)
			}
			p.Servers()[1].Done(Result{Outcome: OK})
			var tried Tried
			tried.Add(p.Servers()[1])
			if s, verdict := p.Pick(&tried); s != nil || verdict != AllFull {
				t.Errorf("free one tried, others full: %v, verdict %d; want AllFull", s, verdict)
			}
			if got := picks(t, p, 1, true); got != "b" {
				t.Errorf("%s, want b, which has room again", got)
			}
		})
	}
}

func TestLimitHoldsUnderConcurrency(t *testing.T) {
	for _, balance := range policies {
		t.Run(balance, func(t *testing.T) {
			o := weighted(balance, 3, 1, 1)
			o.MaxConnections = 2
			p := build(t, o)
			var inUse [3]atomic.Int64
			var served, full atomic.Int64
			var wait sync.WaitGroup
			for range 16 {
				wait.Go(func() {
					for range 2000 {
						s, verdict := p.Pick(new(Tried))
						if s == nil {
							if verdict != AllFull {
								t.Errorf("verdict %d", verdict)
							}
							full.Add(1)
							runtime.Gosched()
							continue
						}
						n := &inUse[letter(s)[0]-'a']
						if n.Add(1) > 2 {
							t.Errorf("more than 2 in flight to %s", s.Name)
						}
						runtime.Gosched()
						n.Add(-1)
						s.Done(Result{Outcome: OK})
						served.Add(1)
					}
				})
			}
			wait.Wait()
			for _, s := range p.Servers() {
				if s.InFlight() != 0 {
					t.Errorf("%s: %d left in flight", s.Name, s.InFlight())
				}
			}
			if served.Load()+full.Load() != 16*2000 || served.Load() == 0 {
				t.Errorf("served %d, full %d", served.Load(), full.Load())
			}
		})
	}
}

func TestBackupsAreAskedLast(t *testing.T) {
	o := weighted("round_robin", 1, 1, 1)
	o.Servers[2].Backup = true
	p := build(t, o)
	if got := picks(t, p, 4, false); got != "abab" {
		t.Errorf("primaries usable: %s, want abab", got)
	}
	tried := Tried{}
	tried.Add(p.Servers()[0])
	tried.Add(p.Servers()[1])
	if s, _ := p.Pick(&tried); s == nil || letter(s) != "c" {
		t.Errorf("primaries tried: %v, want c", s)
	} else {
		s.Done(Result{Outcome: OK})
	}
	for _, s := range p.Servers()[:2] {
		if err := p.registry.SetOrder("test", s.Name, Drained); err != nil {
			t.Fatal(err)
		}
	}
	if got := picks(t, p, 3, false); got != "ccc" {
		t.Errorf("primaries drained: %s, want ccc", got)
	}
	if err := p.registry.SetOrder("test", p.Servers()[0].Name, Enabled); err != nil {
		t.Fatal(err)
	}
	if got := picks(t, p, 3, false); got != "aaa" {
		t.Errorf("a is back: %s, want aaa", got)
	}
}

func TestFullPrimariesDoNotMakeWayForBackups(t *testing.T) {
	o := weighted("round_robin", 1, 1)
	o.Servers[0].MaxConnections = 1
	o.Servers[1].Backup = true
	p := build(t, o)
	picks(t, p, 1, true)
	if s, verdict := p.Pick(new(Tried)); s != nil || verdict != AllFull {
		t.Errorf("%v, verdict %d; want AllFull", s, verdict)
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, balance := range policies {
		t.Run(balance, func(t *testing.T) {
			o := weighted(balance, 5, 1, 1)
			o.MaxConnections = 10
			p := build(t, o)
			mallocs.None(t, t.Name(), 20_000, func() {
				var tried Tried
				first, _ := p.Pick(&tried)
				tried.Add(first)
				first.Done(Result{Outcome: Reset})
				second, _ := p.Pick(&tried)
				second.Done(Result{Outcome: OK, Status: 200, Latency: 1e6})
			})
		})
	}
}

// BenchmarkPick times what a request pays to be given a server ("pick"), and
// the same with the end of the request ("pick+done"). Picks alone are timed in
// batches that are all in flight at the end of their time, as under load, and
// are ended while no time is taken. "median-ns" is that of the batches: other
// work on the machine hardly moves it.
func BenchmarkPick(b *testing.B) {
	const batch = 1000
	ok := Result{Outcome: OK, Status: 200, Latency: 1e6}
	for _, balance := range policies {
		for _, n := range []int{10, 1000} {
			weights := make([]int, n)
			for i := range weights {
				weights[i] = 1
			}
			o := weighted(balance, weights...)
			o.Eject = DefaultEject()
			p := build(b, o)
			key := uint64(1)
			pick := func() *Server {
				var tried Tried
				s, _ := p.PickFor(&tried, Intent{Key: key})
				key += 1 << 40
				return s
			}
			b.Run(fmt.Sprintf("pick/%s/%d", balance, n), func(b *testing.B) {
				b.ReportAllocs()
				picked := make([]*Server, batch)
				var times []time.Duration
				total := time.Duration(0)
				for done := 0; done < b.N; done += batch {
					began := time.Now()
					for i := range picked {
						picked[i] = pick()
					}
					times = append(times, time.Since(began))
					total += times[len(times)-1]
					for _, s := range picked {
						s.Done(ok)
					}
				}
				slices.Sort(times)
				b.ReportMetric(float64(total)/float64(batch*len(times)), "ns/op")
				b.ReportMetric(float64(times[len(times)/2])/batch, "median-ns/op")
			})
			b.Run(fmt.Sprintf("pick+done/%s/%d", balance, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					pick().Done(ok)
				}
			})
		}
	}
}

// If repeated attempts took turns too, each request would meet the failing one
// of two servers first.
func TestRepeatedAttemptsTakeNoTurn(t *testing.T) {
	for _, balance := range []string{"round_robin", "least_conn"} {
		p := build(t, weighted(balance, 1, 1))
		first := map[string]int{}
		for range 10 {
			var tried Tried
			a, _ := p.Pick(&tried)
			tried.Add(a)
			b, _ := p.Pick(&tried)
			if a == nil || b == nil || a == b {
				t.Fatalf("%s: %v, then %v", balance, a, b)
			}
			a.Done(Result{Outcome: Reset})
			b.Done(Result{Status: 200})
			first[a.Name]++
		}
		for name, n := range first {
			if n != 5 {
				t.Errorf("%s: %s was the first of %d in 10 requests", balance, name, n)
			}
		}
	}
}
