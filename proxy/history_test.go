package proxy

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"gateway/internal/mallocs"
	"gateway/internal/origin"
)

func TestHistoryIsABoundedRing(t *testing.T) {
	r := start(t, "[[route]]\nrespond = {}\n")
	for range 5 {
		r.get("/")
	}
	r.until("they are counted", func() bool { return r.metrics.Totals().Statuses[2] == 5 })
	now := time.Now()
	r.sample(now)
	total := func() (n uint64) {
		for _, s := range r.History(0).Samples {
			n += s.Requests[2]
		}
		return n
	}
	if got := total(); got != 5 {
		t.Errorf("%d requests", got)
	}
	first := r.History(0).Last
	for i := range 2 * historyLength {
		r.sample(now.Add(time.Duration(i+1) * historyInterval))
	}
	h := r.History(0)
	if len(h.Samples) != historyLength || h.Last < first+uint64(2*historyLength) || h.Samples[0].Sequence != h.Last-uint64(historyLength)+1 {
		t.Errorf("%d samples up to %d, the first is %d", len(h.Samples), h.Last, h.Samples[0].Sequence)
	}
	if got := total(); got != 0 {
		t.Errorf("%d requests of long ago", got)
	}
	if got := r.History(h.Last - 3).Samples; len(got) < 3 {
		t.Errorf("the last three: %d", len(got))
	}
	if got := r.History(1 << 60).Samples; len(got) != historyLength {
		t.Errorf("of another life: %d", len(got))
	}
}

func TestEventsAreABoundedPartOfTheLog(t *testing.T) {
	kept, written := new(events), &logs{}
	log := slog.New(&keeper{next: slog.NewTextHandler(written, &slog.HandlerOptions{Level: slog.LevelError}), events: kept})
	g := &Gateway{events: kept}
	log.Debug("not for operators")
	log.With("upstream", "app").WithGroup("g").Warn("server is down", "server", "a", slog.Int("n", 2))
	log.Error(strings.Repeat("é", 400))
	e := g.Events(0)
	if len(e.Events) != 2 || e.Last != 2 {
		t.Fatalf("events %+v", e)
	}
	one := e.Events[0]
	if one.Level != "warn" || one.Text != "server is down" || len(one.Fields) != 3 || one.Fields[0] != (Field{"upstream", "app"}) || one.Fields[2] != (Field{"g.n", "2"}) {
		t.Errorf("event %+v", one)
	}
	if text := e.Events[1].Text; len(text) > maxEventText+len("…") || !strings.HasSuffix(text, "é…") {
		t.Errorf("a long text: %d bytes", len(text))
	}
	if text := written.String(); strings.Contains(text, "server is down") || !strings.Contains(text, "level=ERROR") {
		t.Errorf("the log itself: %s", text)
	}
	for range 3 * maxEvents {
		log.Info("again", "a", 1)
	}
	if e := g.Events(0); len(e.Events) != maxEvents || e.Events[0].Sequence != e.Last-maxEvents+1 {
		t.Errorf("%d events up to %d", len(e.Events), e.Last)
	}
}

func TestSamplesOfTheHistoryAllocNothing(t *testing.T) {
	if mallocs.Race {
		t.Skip("the race detector allocates")
	}
	o := origin.Start(t, origin.Reply(origin.OK("hello")))
	r := begin(t, app(o.Address), `
[limit.default]
rate = "1/h"
burst = 1

[[route]]
path     = "/*"
upstream = "app"
limit    = "default"
cache    = true
`)
	r.get("/")
	r.get("/")
	r.until("the history is kept", func() bool {
		r.history.mu.Lock()
		defer r.history.mu.Unlock()
		return r.history.statm != nil
	})
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() { r.sample(now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	h := r.History(0)
	if m := h.Samples[len(h.Samples)-1].Memory; m < 1<<20 {
		t.Errorf("%d bytes in RAM", m)
	}
}
