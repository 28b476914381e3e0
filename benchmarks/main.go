// Command benchmarks compares the gateway with other reverse proxies on one
// machine: nginx, HAProxy, Varnish, Caddy and Traefik, as far as they are there.
//
//	make bench-rivals                         everything: half an hour
//	make bench-rivals-quick                   one short round
//	make profile                              flame graphs of the gateway
//	make prove-cores                          one processor and two
//	make prove-full-cache                     waiting times with a full cache and an empty one
//	go run ./benchmarks -rivals gateway,nginx -scenarios proxy-small,cache-1k
//
// Each proxy runs alone on a core; the load generator, the origin and this
// program share another one. What counts is the CPU time that the proxy takes
// for a request: it means something also where others use the machine. See
// docs/performance.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"gateway/internal/loadgen"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "origin" {
		fail(runOrigin(os.Args[2:]))
	}
	var (
		b          bench
		names      = flag.String("rivals", "", "separated by commas; all that are installed")
		wanted     = flag.String("scenarios", "", "separated by commas; all")
		rounds     = flag.Int("rounds", 5, "in each one every rival is measured once")
		quick      = flag.Bool("quick", false, "one round of short measurements, for development")
		out        = flag.String("out", "benchmarks/results/latest", "results go to OUT.json, OUT.md and OUT.svg")
		lock       = flag.String("lock", "", "file that is locked during each round of a scenario, where several measure on one machine")
		show       = flag.String("show", "", "print the report of a JSON file, and draw its plot anew, instead of measuring")
		list       = flag.Bool("list", false, "print rivals and scenarios")
		atMost     = flag.Duration("at-most", 0, "begin no further round after so long; 0: as long as it takes")
		profiles   = flag.String("profile", "", "write CPU profiles of the gateway and flame graphs of them to this folder instead of measuring")
		cores      = flag.Bool("cores", false, "measure the gateway with one processor and with two instead of beside others")
		fullCache  = flag.Bool("full-cache", false, "measure the gateway with a full cache of 1 GiB and with an empty one instead of beside others")
		connCount  = flag.Int("idle", 10_000, "idle connections")
		closedLoop = flag.Duration("closed", 2500*time.Millisecond, "length of the closed loop")
		fixedRate  = flag.Duration("fixed", 2500*time.Millisecond, "length of the part at a fixed rate")
	)
	flag.IntVar(&b.proxyCore, "proxy-core", 0, "core of the proxy")
	flag.IntVar(&b.clientCore, "client-core", 1, "core of everything else")
	flag.DurationVar(&b.warmup, "warmup", 500*time.Millisecond, "before each part")
	flag.Float64Var(&b.foreign, "max-foreign", 0.05, "measure again when others took more of the proxy's core")
	flag.IntVar(&b.again, "again", 2, "how often to measure again")
	flag.IntVar(&b.nice, "nice", 0, "nice value of everything measured; negative (as root) against neighbours that work")
	flag.Parse()
	b.closed, b.fixed, b.connections = *closedLoop, *fixedRate, *connCount
	if *quick {
		*rounds, b.again, b.closed, b.fixed, b.warmup, b.connections = 1, 0, 700*time.Millisecond, 700*time.Millisecond, 200*time.Millisecond, min(b.connections, 2000)
	}
	switch {
	case *list:
		printList()
	case *show != "":
		r, err := readReport(*show)
		if err == nil {
			err = r.write(strings.TrimSuffix(*show, ".json"))
			fmt.Print(r.markdown(""))
		}
		fail(err)
	default:
		fail(run(&b, task{*names, *wanted, *rounds, *atMost, *out, *lock, *profiles, *cores, *fullCache}))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func printList() {
	for _, r := range rivals {
		path, err := r.path()
		if err != nil {
			path = "not installed: skipped"
		}
		fmt.Printf("%-14s %-28s %s\n", r.name, r.versionText(), path)
	}
	for _, s := range scenarios {
		fmt.Printf("%-14s %s\n", s.name, s.doc)
	}
}

// choose finds what the names name; all when there are none.
func choose[T any](names string, all []T, find func(string) (T, bool)) ([]T, error) {
	if names == "" {
		return all, nil
	}
	var chosen []T
	for _, n := range strings.Split(names, ",") {
		x, ok := find(n)
		if !ok {
			return nil, fmt.Errorf("unknown %q; -list prints what there is", n)
		}
		chosen = append(chosen, x)
	}
	return chosen, nil
}

// task is what to measure, and where to.
type task struct {
	rivals, scenarios string
	rounds            int
	atMost            time.Duration
	out, lock         string
	profiles          string // folder
	cores             bool
	fullCache         bool
}

func run(b *bench, t task) error {
	if runtime.NumCPU() < 2 {
		return errors.New("two cores are needed: one for the proxy alone")
	}
	which, err := choose(t.rivals, rivals, func(n string) (*rival, bool) { r := findRival(n); return r, r != nil })
	if err != nil {
		return err
	}
	all := make([]*scenario, len(scenarios))
	for i := range scenarios {
		all[i] = &scenarios[i]
	}
	todo, err := choose(t.scenarios, all, func(n string) (*scenario, bool) { s := findScenario(n); return s, s != nil })
	if err != nil {
		return err
	}
	if t.cores {
		b.proxyCore, b.clientCore = anyCore, anyCore // the processors are what differs
	}
	if err := b.prepare(); err != nil {
		return err
	}
	defer b.leave()
	switch {
	case t.profiles != "":
		return profile(b, todo, t.profiles)
	case t.cores:
		return compareCores(b, todo, t.rounds)
	case t.fullCache:
		return compareFill(b, t.rounds)
	}
	return series(b, which, todo, t)
}

// prepare makes what all measurements need; leave ends and removes it.
func (b *bench) prepare() (err error) {
	if err := pinSelf(b.clientCore); err != nil {
		return err
	}
	if b.nice != 0 {
		if err := favour(b.nice); err != nil {
			return err
		}
	}
	loadgen.RaiseDescriptorLimit(50_000)
	// On tmpfs if there is one: no proxy waits for a disk.
	base := "/dev/shm"
	if info, err := os.Stat(base); err != nil || !info.IsDir() {
		base = ""
	}
	if b.dir, err = os.MkdirTemp(base, "benchmarks-"); err != nil {
		return err
	}
	os.Chmod(b.dir, 0o755)
	if err = certificate(b.dir); err == nil {
		err = b.startOrigin()
	}
	if err != nil {
		os.RemoveAll(b.dir)
	}
	return err
}

func (b *bench) leave() {
	b.stopOrigin()
	os.RemoveAll(b.dir)
}

// series measures the rivals in interleaved rounds and writes the report after
// each one.
func series(b *bench, which []*rival, todo []*scenario, t task) error {
	r := &report{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Machine: machine(), Kernel: kernel(),
		Command: "go run ./benchmarks " + strings.Join(os.Args[1:], " "), Versions: map[string]string{},
	}
	if c := os.Getenv("BENCH_COMMAND"); c != "" {
		r.Command = c
	}
	var present []*rival
	for _, v := range which {
		r.Versions[v.name] = v.versionText()
		if _, err := v.path(); err != nil {
			fmt.Fprintf(os.Stderr, "%s is not installed: skipped\n", v.name)
			continue
		}
		fmt.Fprintf(os.Stderr, "%-14s %s\n", v.name, r.Versions[v.name])
		present = append(present, v)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)

	began := time.Now()
	for round := 1; round <= t.rounds; round++ {
		if t.atMost > 0 && round > 1 && time.Since(began)*time.Duration(round)/time.Duration(round-1) > t.atMost {
			fmt.Fprintf(os.Stderr, "no time for round %d\n", round)
			break
		}
		r.Rounds = round
		for _, s := range todo {
			release, err := locked(t.lock)
			if err != nil {
				return err
			}
			for i := range present {
				v := present[(i+round-1)%len(present)] // each is the first one once
				n := s.needs
				if v.also != nil {
					v.also(&n)
				}
				without := v.lacks(n)
				if without == "cache" && s.cacheMay {
					n.Cache = false
					without = v.lacks(n)
				}
				if without != "" {
					if round == 1 {
						r.Results = append(r.Results, result{Scenario: s.name, Rival: v.name, Without: without})
					}
					continue
				}
				found := b.measure(v, s, n, round)
				r.Results = append(r.Results, found)
				fmt.Fprintln(os.Stderr, found.line())
				select {
				case <-stop:
					return errors.Join(r.write(t.out), errors.New("interrupted"))
				default:
				}
			}
			release()
		}
		if err := r.write(t.out); err != nil {
			return err
		}
	}
	if path, err := filepath.Abs(t.out + ".md"); err == nil {
		fmt.Fprintln(os.Stderr, "written:", path)
	}
	fmt.Print(r.markdown(""))
	return nil
}

// line tells of a result while the others are measured.
func (x *result) line() string {
	s := fmt.Sprintf("%d %-12s %-13s", x.Round, x.Scenario, x.Rival)
	if x.Error != "" {
		return s + " failed: " + x.Error
	}
	if x.PerConn != 0 {
		return s + fmt.Sprintf(" %6.0f bytes a connection", x.PerConn)
	}
	return s + fmt.Sprintf(" %6.1f µs, %6.0f/s with %.2f of the core, others %2.0f %%  |  at the fixed rate %6.1f µs, p99 %s", x.Closed.CPU, x.Closed.Rate, x.Closed.Share, 100*x.Closed.Foreign,
		x.Fixed.CPU, loadgen.FormatSeconds(x.Fixed.P99))
}

// locked waits for the lock of a file; "" is none.
func locked(name string) (release func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

func kernel() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(text))
}

func machine() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return fmt.Sprintf("%s, %d cores", strings.TrimSpace(value), runtime.NumCPU())
		}
	}
	return fmt.Sprintf("%d cores", runtime.NumCPU())
}
