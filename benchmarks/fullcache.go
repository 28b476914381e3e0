package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"gateway/internal/loadgen"
)

// crowd is what compareFill sends: hits of 100 URLs, and one request in ten for
// what nobody has asked for yet, which a full cache has to make room for.
var crowd = scenario{
	name: "full-cache", doc: "hits of 16 KB and a tenth misses", needs: needs{Cache: true},
	clients: 64, rate: 3000, status: 200, origin: 0.1,
	path: "/c16k/{key}", keys: 100, answer: "16k",
}

// crowdMisses is the tenth.
var crowdMisses = scenario{path: "/c16k/new/{n}"}

// fillMemory is the cache that is filled, and fillRequests are enough for it.
const (
	fillMemory   = "1GiB"
	fillRequests = 80_000 // of 16 KB
)

// compareFill measures the waiting times of a gateway whose cache of 1 GiB is
// full and throws something out for each miss, in turns with those of one whose
// cache is as good as empty.
func compareFill(b *bench, rounds int) error {
	full, err := b.serveCrowd()
	if err != nil {
		return err
	}
	defer full.stop()
	fill := full.plan
	fill.Targets = []loadgen.Target{crowdMisses.target(full.setting.Address)}
	fill.Targets[0].URL = "http://" + full.setting.Address + "/c16k/old/{n}"
	fill.Warmup, fill.Requests, fill.First = 0, fillRequests, 1
	run, err := loadgen.Start(context.Background(), fill, nil)
	if err != nil {
		return err
	}
	run.Wait()

	var found [2][]*part
	for round := range rounds {
		empty, err := b.serveCrowd()
		if err != nil {
			return err
		}
		for i, v := range []*served{empty, full} {
			plan := v.plan
			plan.First, plan.Duration = int64(round+1)*100_000_000, b.fixed
			plan.Rate, plan.Poisson = crowd.rate, true
			p, err := b.load(v.process, &crowd, plan)
			if err != nil {
				empty.stop()
				return err
			}
			found[i] = append(found[i], p)
			fmt.Fprintf(os.Stderr, "%d %-5s p50 %s, p99 %s, p99.9 %s, others %.0f %%\n", round+1, [...]string{"empty", "full"}[i],
				loadgen.FormatSeconds(p.P50), loadgen.FormatSeconds(p.P99), loadgen.FormatSeconds(p.P999), 100*p.Foreign)
		}
		empty.stop()
	}
	_, resident := memory(full.tree())
	fmt.Printf("%.0f requests a second, nine hits in ten; medians of %d rounds in turns; resident when full %.0f MiB\n", crowd.rate, rounds, float64(resident)/(1<<20))
	fmt.Printf("%-10s %12s %12s %7s\n", "", "empty", "1 GiB full", "ratio")
	for _, c := range []struct {
		name  string
		of    func(*part) float64
		scale float64
	}{
		{"CPU µs", func(p *part) float64 { return p.CPU }, 1},
		{"p50 µs", func(p *part) float64 { return p.P50 }, 1e6},
		{"p99 µs", func(p *part) float64 { return p.P99 }, 1e6},
		{"p99.9 µs", func(p *part) float64 { return p.P999 }, 1e6},
	} {
		var median [2]float64
		for i, parts := range found {
			var values []float64
			for _, p := range parts {
				values = append(values, c.scale*c.of(p))
			}
			median[i] = spreadOf(values).median
		}
		fmt.Printf("%-10s %12.1f %12.1f %6.2f×\n", c.name, median[0], median[1], median[1]/median[0])
	}
	return nil
}

// serveCrowd starts a gateway with a cache of 1 GiB that has the URLs of the hits.
func (b *bench) serveCrowd() (*served, error) {
	n := crowd.needs
	n.Memory = fillMemory
	v, err := b.serve(findRival("gateway"), &crowd, n)
	if err != nil {
		return nil, err
	}
	hits, misses := crowd.target(v.setting.Address), crowdMisses.target(v.setting.Address)
	hits.Weight, misses.Weight = 9, 1
	v.plan.Targets = []loadgen.Target{hits, misses}
	v.plan.Warmup = time.Second
	return v, nil
}
