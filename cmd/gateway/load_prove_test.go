//go:build prove

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/loadgen"
)

// slowOrigin answers each request after a delay that its number decides.
func slowOrigin(t *testing.T, delay func(n uint64) time.Duration) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var number atomic.Uint64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in, end := bufio.NewReader(c), []byte("\r\n")
				for {
					for line := []byte(nil); !bytes.Equal(line, end); {
						if line, err = in.ReadSlice('\n'); err != nil {
							return
						}
					}
					time.Sleep(delay(number.Add(1)))
					c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
				}
			}()
		}
	}()
	return "http://" + l.Addr().String() + "/"
}

// loadOnce runs gateway load.
func loadOnce(t *testing.T, args ...string) *loadgen.Report {
	t.Helper()
	r := command(t, append([]string{"load", "-q", "--format", "json"}, args...)...)
	report := &loadgen.Report{}
	if err := json.Unmarshal([]byte(r.stdout), report); err != nil || report.Failed > 0 {
		t.Fatalf("gateway load %v: %v %s%s", args, err, r.stdout, r.stderr)
	}
	return report
}

// TestProveLoadAgainstWrk compares throughput with that of wrk, in turns,
// against an origin that takes 5 ms:
//
//	make prove-load
func TestProveLoadAgainstWrk(t *testing.T) {
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Skip("wrk is not installed (Debian package wrk)")
	}
	url := slowOrigin(t, func(uint64) time.Duration { return 5 * time.Millisecond })
	rate := regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	var ours, theirs, cpu []float64
	for i := range 7 {
		r := loadOnce(t, "-c", "64", "-t", "1", "-d", "3s", url)
		out, err := exec.Command("wrk", "-c64", "-t1", "-d3s", url).Output()
		m := rate.FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("wrk: %v %s", err, out)
		}
		w, _ := strconv.ParseFloat(string(m[1]), 64)
		t.Logf("round %d: gateway load %.0f/s with %.0f %% of a core, wrk %.0f/s", i+1, r.Rate, 100*r.CPU/r.Elapsed, w)
		ours, theirs, cpu = append(ours, r.Rate), append(theirs, w), append(cpu, r.CPU/r.Elapsed)
	}
	median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	ratio, share := median(ours)/median(theirs), median(cpu)
	t.Logf("gateway load / wrk: %.3f, CPU %.2f of a core", ratio, share)
	if ratio < 0.95 || ratio > 1.05 || share > 0.5 {
		t.Errorf("want a ratio of 0.95 to 1.05, and at most half a core")
	}
}

// TestProveLoadOfKnownDelays: of a thousand requests nine hundred are answered
// after 5 ms, ninety after 50 ms and ten after 200 ms.
func TestProveLoadOfKnownDelays(t *testing.T) {
	url := slowOrigin(t, func(n uint64) time.Duration {
		switch n %= 1000; {
		case n < 10:
			return 200 * time.Millisecond
		case n < 100:
			return 50 * time.Millisecond
		}
		return 5 * time.Millisecond
	})
	for _, args := range [][]string{{"-c", "64"}, {"-c", "256", "-r", "2000"}} {
		r := loadOnce(t, append(args, "-d", "8s", url)...)
		within := map[float64]float64{}
		for _, p := range r.Curve {
			for _, s := range []float64{0.5, 0.95, 0.995} {
				if within[s] == 0 && p.Share >= s {
					within[s] = p.Latency
				}
			}
		}
		for s, want := range map[float64]float64{0.5: 0.005, 0.95: 0.05, 0.995: 0.2} {
			got := within[s]
			t.Logf("%v: p%s is %s; the delay is %s", args, fmt.Sprint(100*s), loadgen.FormatSeconds(got), loadgen.FormatSeconds(want))
			if got < want*0.99 || got > want*1.05+0.001 {
				t.Errorf("want it within 5 %% and a millisecond")
			}
		}
	}
}
