package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	pprofile "github.com/google/pprof/profile"

	"gateway/internal/loadgen"
)

// contendedFor is how long locks are watched, in seconds.
const contendedFor = 4

// compareCores measures the gateway's CPU time of a request with one processor
// and with two, in turns, and then which locks are fought for with two. All
// processes may run on all cores: only GOMAXPROCS differs.
func compareCores(b *bench, todo []*scenario, rounds int) error {
	fmt.Printf("%-12s %14s %14s %7s   CPU time of a request in µs, closed loop, medians of %d rounds\n", "", "1 processor", "2 processors", "ratio", rounds)
	for _, s := range todo {
		if s.idle > 0 {
			continue
		}
		var found [2][]float64
		for range rounds {
			for i := range found {
				p, err := b.withProcessors(s, i+1)
				if err != nil {
					return fmt.Errorf("%s, %d processors: %w", s.name, i+1, err)
				}
				found[i] = append(found[i], p.CPU)
			}
		}
		one, two := spreadOf(found[0]), spreadOf(found[1])
		fmt.Printf("%-12s %14s %14s %6.2f×\n", s.name, one.text(1), two.text(1), two.median/one.median)
	}
	for _, s := range todo {
		if s.idle > 0 {
			continue
		}
		if err := b.contention(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func processors(n int) string { return fmt.Sprintf("GOMAXPROCS=%d", n) }

func (b *bench) withProcessors(s *scenario, n int) (*part, error) {
	v, err := b.serve(findRival("gateway"), s, s.needs, processors(n))
	if err != nil {
		return nil, err
	}
	defer v.stop()
	plan := v.plan
	plan.First, plan.Duration = 1_000, b.closed
	return b.load(v.process, s, plan)
}

// contention prints who made others wait for a lock while two processors were
// busy: the share of all delay by locks, and of the time that passed.
func (b *bench) contention(s *scenario) error {
	v, err := b.serve(findRival("gateway"), s, s.needs, processors(2))
	if err != nil {
		return err
	}
	defer v.stop()
	plan := v.plan
	plan.First, plan.Duration = 1_000, contendedFor*time.Second+500*time.Millisecond
	run, err := loadgen.Start(context.Background(), plan, nil)
	if err != nil {
		return err
	}
	<-run.Measuring()
	text, err := v.admin(fmt.Sprintf("/debug/pprof/mutex?seconds=%d", contendedFor))
	run.Wait()
	if err != nil {
		return err
	}
	p, err := pprofile.Parse(bytes.NewReader(text))
	if err != nil {
		return err
	}
	total, holders := delays(p)
	fmt.Printf("\n%s: %.2f ms of delay by locks in each second of two processors\n", s.name, 1e3*total/contendedFor)
	for _, h := range holders[:min(8, len(holders))] {
		fmt.Printf("  %5.1f %% of it, %6.3f %% of the time   %s\n", 100*h.seconds/total, 100*h.seconds/contendedFor, h.name)
	}
	return nil
}

// holder is who held a lock while others waited.
type holder struct {
	name    string
	seconds float64
}

// delays sums up a mutex profile: by the function that released the lock,
// "runtime" for the locks of Go's runtime itself.
func delays(p *pprofile.Profile) (total float64, holders []holder) {
	at := slices.IndexFunc(p.SampleType, func(v *pprofile.ValueType) bool { return v.Type == "delay" })
	by := map[string]float64{}
	for _, s := range p.Sample {
		seconds := float64(s.Value[at]) / 1e9
		total += seconds
		by[releaser(s)] += seconds
	}
	for name, seconds := range by {
		holders = append(holders, holder{name, seconds})
	}
	slices.SortFunc(holders, func(a, b holder) int { return int(1e9 * (b.seconds - a.seconds)) })
	return total, holders
}

// releaser is the innermost function that is not the lock's own.
func releaser(s *pprofile.Sample) string {
	if len(s.Location) > 0 && len(s.Location[0].Line) > 0 {
		if f := s.Location[0].Line[0].Function.Name; strings.HasPrefix(f, "runtime.") {
			return "runtime"
		}
	}
	for _, l := range s.Location {
		for _, line := range l.Line {
			if f := line.Function.Name; !strings.HasPrefix(f, "sync.") && !strings.HasPrefix(f, "internal/sync.") {
				return f
			}
		}
	}
	return "unknown"
}
