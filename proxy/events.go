package proxy

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Event is a line of the gateway's own log: reloads, servers that go down or
// are ejected, dependencies, operators' decisions, errors.
type Event struct {
	Sequence uint64    `json:"n"` // 1, 2, … since the gateway's start
	Time     time.Time `json:"time"`
	Level    string    `json:"level"` // "info", "warn" or "error"
	Text     string    `json:"text"`
	Fields   []Field   `json:"fields,omitempty"`
}

// Field is a value of an event.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Events are the newest ones, oldest first.
type Events struct {
	Started time.Time `json:"started"` // of the gateway: another one begins to count anew
	Last    uint64    `json:"last"`    // sequence of the newest event
	Events  []Event   `json:"events"`
}

// So much is kept of the log.
const (
	maxEvents      = 200
	maxEventFields = 16
	maxEventText   = 300 // bytes of a text, and of a field's value
)

// events keeps the newest lines of a log.
type events struct {
	mu   sync.Mutex
	ring [maxEvents]Event
	last uint64
}

// Events are those after one of that sequence, 0 for all that are kept.
func (g *Gateway) Events(since uint64) Events {
	e := g.events
	e.mu.Lock()
	defer e.mu.Unlock()
	answer := Events{Started: g.started.UTC(), Last: e.last, Events: []Event{}}
	if since > e.last { // of another life of the gateway
		since = 0
	}
	first := since + 1
	if e.last >= maxEvents {
		first = max(first, e.last-maxEvents+1)
	}
	for n := first; n <= e.last; n++ {
		answer.Events = append(answer.Events, e.ring[n%maxEvents])
	}
	return answer
}

func (e *events) add(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	event.Sequence = e.last
	e.ring[e.last%maxEvents] = event
}

// keeper is a slog.Handler that keeps what passes, whatever the level at which
// the log is written.
type keeper struct {
	next   slog.Handler
	events *events
	fields []Field
	group  string // "" or with a dot at its end
}

func (k *keeper) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || k.next.Enabled(ctx, l)
}

func (k *keeper) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		event := Event{Time: r.Time.UTC(), Level: "info", Text: cut(r.Message), Fields: k.fields[:len(k.fields):len(k.fields)]}
		switch {
		case r.Level >= slog.LevelError:
			event.Level = "error"
		case r.Level >= slog.LevelWarn:
			event.Level = "warn"
		}
		r.Attrs(func(a slog.Attr) bool {
			event.Fields = k.append(event.Fields, a)
			return true
		})
		k.events.add(event)
	}
	if !k.next.Enabled(ctx, r.Level) {
		return nil
	}
	return k.next.Handle(ctx, r)
}

// append appends a field, if there is room for it.
func (k *keeper) append(fields []Field, a slog.Attr) []Field {
	if len(fields) >= maxEventFields || a.Equal(slog.Attr{}) {
		return fields
	}
	return append(fields, Field{Name: cut(k.group + a.Key), Value: cut(a.Value.Resolve().String())})
}

func (k *keeper) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *k
	next.next = k.next.WithAttrs(attrs)
	next.fields = k.fields[:len(k.fields):len(k.fields)]
	for _, a := range attrs {
		next.fields = next.append(next.fields, a)
	}
	return &next
}

func (k *keeper) WithGroup(name string) slog.Handler {
	next := *k
	next.next = k.next.WithGroup(name)
	if name != "" {
		next.group += name + "."
	}
	return &next
}

// cut shortens a text.
func cut(s string) string {
	if len(s) <= maxEventText {
		return s
	}
	end := maxEventText
	for end > 0 && s[end]&0xc0 == 0x80 { // inside a letter
		end--
	}
	return s[:end] + "…"
}
