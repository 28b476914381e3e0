package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/loadgen"
)

// part is what one part of a measurement found, of the proxy alone.
type part struct {
	CPU      float64 `json:"cpu"`  // µs a request, of all its processes
	Rate     float64 `json:"rate"` // answers a second
	Share    float64 `json:"share"`
	Foreign  float64 `json:"foreign"` // share of the proxy's core that others took
	Client   float64 `json:"client"`  // share of the other core that was busy
	P50      float64 `json:"p50"`     // seconds
	P99      float64 `json:"p99"`
	P999     float64 `json:"p999"`
	Body     float64 `json:"body"` // bytes of an answer, its head included
	Resident int64   `json:"resident"`
	Origin   float64 `json:"origin"` // requests to the origin for each request
}

// result is one rival in one round of one scenario.
type result struct {
	Scenario string  `json:"scenario"`
	Rival    string  `json:"rival"`
	Round    int     `json:"round"`
	Without  string  `json:"without,omitempty"` // what it could not do: it was not measured
	Error    string  `json:"error,omitempty"`
	Closed   *part   `json:"closed,omitempty"`    // as many requests as the connections carry
	Fixed    *part   `json:"fixed,omitempty"`     // at the scenario's rate
	PerConn  float64 `json:"per_conn,omitempty"`  // idle: bytes for each connection
	IdleHeld int     `json:"idle_held,omitempty"` // connections that were open in the end
	Base     int64   `json:"base,omitempty"`      // idle: bytes without them
	IdleCPU  float64 `json:"idle_cpu,omitempty"`  // idle: share of a core meanwhile
}

// bench is a series of measurements.
type bench struct {
	proxyCore, clientCore int
	warmup, closed, fixed time.Duration
	foreign               float64 // a noisier closed part is measured again
	again                 int     // so often
	connections           int     // of idle
	dir                   string
	nice                  int
	origin                *exec.Cmd
	originInput           io.Closer
	origins               []string
}

// startOrigin starts the origin in a process of its own, on the client's core.
func (b *bench) startOrigin() error {
	for range 3 {
		b.origins = append(b.origins, freeAddress())
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b.origin = exec.Command(self, append([]string{"origin"}, b.origins...)...)
	b.origin.Stderr = os.Stderr
	b.origin.Env = append(os.Environ(), "GOGC=400")
	if b.originInput, err = b.origin.StdinPipe(); err != nil {
		return err
	}
	out, err := b.origin.StdoutPipe()
	if err == nil {
		err = startPinned(b.clientCore, b.origin)
	}
	if err != nil {
		return fmt.Errorf("start the origin: %w", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		return fmt.Errorf("start the origin: %q, %v", line, err)
	}
	return nil
}

func (b *bench) stopOrigin() {
	b.originInput.Close() // which it takes as a sign
	b.origin.Wait()
}

// asked is how many requests the origin has answered.
func (b *bench) asked() (float64, error) {
	response, err := http.Get("http://" + b.origins[0] + "/__count")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(string(text), 64)
}

// freeAddress is below the ports that kernels give to clients.
func freeAddress() string {
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.N(20_000)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
}

// measure measures a rival, again while somebody else disturbs it.
func (b *bench) measure(r *rival, s *scenario, n needs, round int) result {
	for try := 0; ; try++ {
		found := result{Scenario: s.name, Rival: r.name, Round: round}
		if err := b.once(r, s, n, &found); err != nil {
			found.Error = err.Error()
		}
		if found.Closed == nil || found.Closed.Foreign <= b.foreign || try >= b.again {
			return found
		}
		fmt.Fprintf(os.Stderr, "%s, %s: others took %.0f %% of the core; again\n", s.name, r.name, 100*found.Closed.Foreign)
	}
}

func (b *bench) once(r *rival, s *scenario, n needs, found *result) error {
	v, err := b.serve(r, s, n)
	if err != nil {
		return err
	}
	defer v.stop()
	if s.idle > 0 {
		return b.idle(v.process, s, v.setting, found)
	}
	plan := v.plan
	plan.First, plan.Duration = 1_000, b.closed
	if found.Closed, err = b.load(v.process, s, plan); err != nil {
		return fmt.Errorf("closed loop: %w", err)
	}
	plan.First, plan.Duration = 5_000_000_000, b.fixed
	plan.Rate, plan.Poisson = s.rate, true
	if found.Fixed, err = b.load(v.process, s, plan); err != nil {
		return fmt.Errorf("fixed rate: %w", err)
	}
	return nil
}

// served is a proxy that answers a scenario as it should, its cache full.
type served struct {
	*process
	setting *setting
	plan    loadgen.Plan // in a closed loop; First and Duration are still to be set
}

// stop ends the proxy and removes its files.
func (v *served) stop() {
	v.process.stop()
	os.RemoveAll(v.setting.Dir)
}

// serve starts a proxy on the proxy's core, with more variables in its
// environment. The caller stops it.
func (b *bench) serve(r *rival, s *scenario, n needs, more ...string) (v *served, err error) {
	dir, err := os.MkdirTemp(b.dir, r.name+"-")
	if err != nil {
		return nil, err
	}
	os.Chmod(dir, 0o777) // some give their privileges up
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	set := &setting{
		needs: n, Dir: dir, Address: freeAddress(), Origins: b.origins[:1], Root: os.Getuid() == 0,
		Certificate: filepath.Join(b.dir, "cert.pem"), Key: filepath.Join(b.dir, "key.pem"), Both: filepath.Join(b.dir, "both.pem"),
		Descriptors: int(min(limit.Cur, 60_000)), Clients: int(min(limit.Cur, 60_000)/2 - 100),
		Old: r.name == "caddy" && strings.HasPrefix(strings.TrimPrefix(r.versionText(), "v"), "2.6"),
	}
	if n.Pool {
		set.Origins = b.origins
	}
	binary, err := r.path()
	if err == nil {
		err = r.render(set)
	}
	if err != nil {
		return nil, err
	}
	args, environment := r.command(set)
	p, err := startOn(b.proxyCore, dir, slices.Concat(environment, more), binary, args...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	if err := s.await(set.Address, p); err != nil {
		return nil, fmt.Errorf("not ready: %w: %s", err, p.output.String())
	}
	if err := s.verify(set.Address); err != nil {
		return nil, fmt.Errorf("wrong answer: %w", err)
	}
	plan := loadgen.Plan{
		Targets: []loadgen.Target{s.target(set.Address)}, Connections: s.clients, Threads: 1,
		Keys: max(1, s.keys), Warmup: b.warmup, Seed: 1,
		TLS: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, ServerName: host},
	}
	if s.keys > 0 { // fill the cache
		fill := plan
		fill.Warmup, fill.Requests, fill.Connections = 0, int64(20*s.keys), 4
		run, err := loadgen.Start(context.Background(), fill, nil)
		if err != nil {
			return nil, err
		}
		run.Wait()
	}
	return &served{p, set, plan}, nil
}

// load runs a plan and measures the proxy meanwhile.
func (b *bench) load(p *process, s *scenario, plan loadgen.Plan) (*part, error) {
	pids := p.tree()
	askedBefore, err := b.asked()
	if err != nil {
		return nil, fmt.Errorf("ask the origin: %w", err)
	}
	run, err := loadgen.Start(context.Background(), plan, nil)
	if err != nil {
		return nil, err
	}
	type moment struct {
		cpu, foreign, client time.Duration
		answered             float64
		at, answeredAt       time.Time
	}
	look := func() (m moment) {
		m.answered, m.answeredAt = float64(run.Answered()), time.Now()
		m.cpu, m.at = cpu(pids), time.Now()
		m.foreign, m.client = coreBusy(b.proxyCore), coreBusy(b.clientCore)
		return m
	}
	<-run.Measuring()
	from := look()
	time.Sleep(plan.Duration - 100*time.Millisecond)
	to := look()
	report := run.Wait()
	askedAfter, err := b.asked()
	if err != nil {
		return nil, fmt.Errorf("ask the origin: %w", err)
	}
	// Everything is a rate over its own span: where the core is busy the looks
	// take their time.
	wall := to.at.Sub(from.at).Seconds()
	answers := (to.answered - from.answered) / to.answeredAt.Sub(from.answeredAt).Seconds()
	if answers == 0 {
		return nil, fmt.Errorf("nothing was answered; failed: %v", report.Failures)
	}
	used := (to.cpu - from.cpu).Seconds() / wall
	m := &part{
		CPU: 1e6 * used / answers, Rate: answers, Share: used,
		Foreign: math.Max(0, (to.foreign-from.foreign).Seconds()/wall-used), Client: (to.client - from.client).Seconds() / wall,
		P50: report.Latency.P50, P99: report.Latency.P99, P999: report.Latency.P999,
		Body:   float64(report.BytesIn) / math.Max(1, float64(report.Answered)),
		Origin: (askedAfter - askedBefore) / float64(run.Answered()), // of the whole run, warm-up included
	}
	_, m.Resident = memory(pids)
	return m, s.check(m, report)
}

// check makes sure that what was measured is what the scenario means.
func (s *scenario) check(m *part, r *loadgen.Report) error {
	total := float64(r.Answered + r.Failed)
	if right := float64(r.Statuses[strconv.Itoa(s.status)]); right < 0.999*total {
		return fmt.Errorf("statuses %v, failed %v; want %d", r.Statuses, r.Failures, s.status)
	}
	if math.Abs(m.Origin-s.origin) > 0.01 {
		return fmt.Errorf("%.3f requests to the origin for each; want %v", m.Origin, s.origin)
	}
	return nil
}

// idle opens connections, each with one request, and weighs what they cost.
func (b *bench) idle(p *process, s *scenario, set *setting, found *result) error {
	warm := loadgen.Plan{Targets: []loadgen.Target{s.target(set.Address)}, Connections: s.clients, Threads: 1, Duration: time.Second}
	run, err := loadgen.Start(context.Background(), warm, nil)
	if err != nil {
		return err
	}
	run.Wait()
	time.Sleep(500 * time.Millisecond)
	pids := p.tree()
	found.Base, _ = memory(pids)
	n := min(s.idle, b.connections, set.Clients)
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range n {
		c, err := net.DialTimeout("tcp", set.Address, 10*time.Second)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, c)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "GET /1k/%010d HTTP/1.1\r\nHost: %s\r\n\r\n", 7_000_000_000+i, host)
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
		}
		if err != nil || response.StatusCode != s.status {
			return fmt.Errorf("connection %d: %v", i, err)
		}
	}
	time.Sleep(2 * time.Second)
	full, _ := memory(pids)
	used, at := cpu(pids), time.Now()
	time.Sleep(2 * time.Second)
	found.IdleCPU = (cpu(pids) - used).Seconds() / time.Since(at).Seconds()
	for _, c := range conns {
		if open(c) {
			found.IdleHeld++
		}
	}
	if found.IdleHeld < n*99/100 {
		return fmt.Errorf("only %d of %d connections were left open", found.IdleHeld, n)
	}
	found.PerConn = float64(full-found.Base) / float64(n)
	return nil
}

// open reports that the other side has not closed the connection.
func open(c net.Conn) (is bool) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) {
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		is = err == unix.EAGAIN
	})
	return is
}
