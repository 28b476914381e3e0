package loadgen

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Run is a plan at work.
type Run struct {
	plan       Plan
	epoch      time.Time
	tls        *tls.Config
	addresses  map[string]*net.TCPAddr
	handshakes chan struct{} // one for each under way
	shaking    sync.WaitGroup
	over       context.Context // of handshakes
	end        context.CancelFunc
	loops      []*loop
	measuring  chan struct{} // closed when the measured part begins
	ended      chan struct{} // closed with report set
	report     *Report

	mu    sync.Mutex
	cause error // of the last connection that failed in a handshake
}

// handshakesAtOnce bounds the goroutines that do TLS handshakes.
const handshakesAtOnce = 64

// sliver is the shortest rest of a second, in seconds, that is reported.
const sliver = 0.05

// Start checks the plan, tries a connection to each server and begins. Each
// second it calls progress, which may be nil, from a goroutine of its own. When
// ctx ends the run stops sending, waits a moment for what is under way, and
// reports what it has. Wait must be called.
func Start(ctx context.Context, plan Plan, progress func(Second)) (*Run, error) {
	if err := plan.Complete(); err != nil {
		return nil, err
	}
	RaiseDescriptorLimit(uint64(plan.Connections) + 1000)
	r := &Run{
		plan: plan, epoch: time.Now(), tls: plan.TLS,
		addresses:  map[string]*net.TCPAddr{},
		handshakes: make(chan struct{}, handshakesAtOnce),
		measuring:  make(chan struct{}), ended: make(chan struct{}),
	}
	r.over, r.end = context.WithCancel(context.Background())
	if r.tls == nil {
		r.tls = &tls.Config{}
	}
	r.tls = r.tls.Clone()
	r.tls.NextProtos = []string{"http/1.1"}
	if err := r.resolve(ctx); err != nil {
		r.end()
		return nil, err
	}
	if err := r.build(); err != nil {
		r.close()
		return nil, err
	}
	go r.work(ctx, progress)
	return r, nil
}

// resolve finds the addresses, and whether anybody is there.
func (r *Run) resolve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.plan.Timeout)
	defer cancel()
	for _, t := range r.plan.Targets {
		c, err := t.pattern()
		if err != nil {
			return err
		}
		if r.addresses[c.site.address] != nil {
			continue
		}
		var d net.Dialer
		probe, err := d.DialContext(ctx, "tcp", c.site.address)
		if err != nil {
			return err
		}
		r.addresses[c.site.address] = probe.RemoteAddr().(*net.TCPAddr)
		if c.site.secure {
			config := r.tls.Clone()
			if config.ServerName == "" {
				config.ServerName = c.site.serverName
			}
			err = tls.Client(probe, config).HandshakeContext(ctx)
		}
		probe.Close()
		if err != nil {
			return fmt.Errorf("TLS with %s: %w", c.site.address, err)
		}
	}
	return nil
}

// build makes the loops with their lanes and connections.
func (r *Run) build() error {
	p := &r.plan
	sites, err := p.sites()
	if err != nil {
		return err
	}
	weights, total := make([]int, len(sites)), 0
	targets := make([][]*pattern, len(sites))
	for i := range p.Targets {
		t, _ := p.Targets[i].pattern() // checked by resolve
		for s := range sites {
			if sites[s] == t.site {
				targets[s] = append(targets[s], t)
				weights[s] += t.weight
				total += t.weight
			}
		}
	}
	connections := split(int64(p.Connections), weights)
	for _, n := range connections {
		p.Threads = min(p.Threads, int(n))
	}
	requests := split(p.Requests, weights)
	for i := range p.Threads {
		l := &loop{
			run: r, plan: p, buffer: make([]byte, readBuffer),
			random: rand.New(rand.NewPCG(p.Seed, uint64(i))),
			keys:   newZipf(p.Keys, p.Zipf),
			number: uint64(p.First) + uint64(i), stride: uint64(p.Threads),
			measured: 1 << 62,
			tally:    &tally{current: newInterval()},
		}
		r.loops = append(r.loops, l)
		if l.poll, err = NewPoller(); err != nil {
			return fmt.Errorf("open epoll: %w", err)
		}
		for s := range sites {
			n := share(connections[s], i, p.Threads)
			a := &lane{loop: l, site: sites[s], even: true, idle: make([]*conn, n)}
			for _, t := range targets[s] {
				a.total += t.weight
				a.even = a.even && t.weight == targets[s][0].weight
				a.targets = append(a.targets, laneTarget{pattern: t, text: []byte(t.text), upTo: a.total})
			}
			a.rate = p.Rate * float64(weights[s]) / float64(total) / float64(p.Threads)
			if a.rate > 0 { // the threads take turns
				a.offset = time.Duration(float64(i) / float64(p.Threads) / a.rate * 1e9)
			}
			a.bounded, a.budget = p.Requests > 0, share(requests[s], i, p.Threads)
			l.lanes = append(l.lanes, a)
			for range n {
				l.conns = append(l.conns, &conn{lane: a, loop: l, slot: int32(len(l.conns)), fd: -1})
			}
		}
	}
	return nil
}

// split divides n by weights, each at least 1 as far as n reaches.
func split(n int64, weights []int) []int64 {
	total := 0
	for _, w := range weights {
		total += w
	}
	parts, rest := make([]int64, len(weights)), n
	for i, w := range weights {
		parts[i] = int64(float64(n) * float64(w) / float64(total))
		if n >= int64(len(weights)) {
			parts[i] = max(parts[i], 1)
		}
		rest -= parts[i]
	}
	for i := 0; rest != 0; i = (i + 1) % len(parts) {
		switch {
		case rest > 0:
			parts[i]++
			rest--
		case parts[i] > 1:
			parts[i]--
			rest++
		}
	}
	return parts
}

// share is part i of n in so many parts as equal as can be.
func share(n int64, i, parts int) int64 {
	return n*int64(i+1)/int64(parts) - n*int64(i)/int64(parts)
}

func (r *Run) work(ctx context.Context, progress func(Second)) {
	defer close(r.ended)
	defer r.close()
	var opened, worked sync.WaitGroup
	opened.Add(len(r.loops))
	begin := make(chan struct{})
	var start time.Duration // written before begin is closed
	for _, l := range r.loops {
		worked.Go(func() {
			PunctualThread() // the thread ends with the goroutine
			l.open()
			opened.Done()
			<-begin
			l.work(start)
		})
	}
	stop := context.AfterFunc(ctx, func() {
		for _, l := range r.loops {
			l.stopped.Store(true)
			l.poll.Wake()
		}
	})
	defer stop()
	opened.Wait()
	start = time.Since(r.epoch)
	measured := start + r.plan.Warmup
	close(begin)

	done := make(chan struct{})
	go func() { worked.Wait(); close(done) }()
	select {
	case <-time.After(measured - time.Since(r.epoch)):
	case <-done:
	}
	var before, after unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &before)
	close(r.measuring)

	total, empty := newInterval(), newInterval()
	report := &Report{Began: r.epoch.Add(measured).UTC()}
	previous := measured
	collect := func(now time.Duration) {
		span := newInterval()
		for _, l := range r.loops {
			full := l.tally.take(empty)
			span.add(full)
			full.reset()
			empty = full
		}
		total.add(span)
		s := newSecond(previous-measured, now-previous, span)
		previous = now
		if s.Length < sliver && len(report.Series) > 0 {
			return // its rate would mean nothing
		}
		report.Series = append(report.Series, s)
		if progress != nil {
			progress(s)
		}
	}
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	for running := true; running; {
		select {
		case <-ticks.C:
			collect(time.Since(r.epoch))
		case <-done:
			running = false
		}
	}
	end := measured
	for _, l := range r.loops {
		end = max(end, l.last, min(l.end, time.Since(r.epoch)))
	}
	if end-previous > 0 || len(report.Series) == 0 {
		collect(max(end, previous+time.Microsecond))
	} else { // answers between the last tick and the end of the run
		collect(time.Since(r.epoch))
	}
	unix.Getrusage(unix.RUSAGE_SELF, &after)
	report.CPU = seconds(after) - seconds(before)
	report.fill(&r.plan, max(end-measured, time.Microsecond), total)
	r.mu.Lock()
	if r.cause != nil {
		report.Cause = r.cause.Error()
	}
	r.mu.Unlock()
	r.report = report
}

func seconds(u unix.Rusage) float64 {
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

func (r *Run) close() {
	r.end()
	r.shaking.Wait() // they wake the pollers
	for _, l := range r.loops {
		for _, a := range l.arrivals.list {
			if a.fd >= 0 {
				unix.Close(a.fd)
			}
		}
		if l.poll != nil {
			l.poll.Close()
		}
	}
}

// note keeps the cause of a failed connection for the report.
func (r *Run) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cause = err
}

// Measuring is closed when the measured part begins.
func (r *Run) Measuring() <-chan struct{} { return r.measuring }

// Answered is the number of requests with a complete answer so far, those of
// the warm-up included.
func (r *Run) Answered() (n int64) {
	for _, l := range r.loops {
		n += l.tally.answered.Load()
	}
	return n
}

// Wait waits for the end and returns the report.
func (r *Run) Wait() *Report {
	<-r.ended
	return r.report
}
