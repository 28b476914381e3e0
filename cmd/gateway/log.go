package main

import (
	"context"
	"log/slog"
	"os"
	"sync/atomic"

	"gateway/config"
)

// journal is the gateway's own log on standard error, a part of the
// configuration: a reload changes level and format.
type journal struct {
	level slog.LevelVar
	json  atomic.Bool // lines for machines instead of people
}

// newLog is a log with its settings.
func newLog(o config.Log) (*slog.Logger, *journal) {
	l := &journal{}
	options := &slog.HandlerOptions{Level: &l.level}
	l.apply(o)
	return slog.New(format{l, slog.NewTextHandler(os.Stderr, options), slog.NewJSONHandler(os.Stderr, options)}), l
}

// Prepare implements proxy.Part.
func (l *journal) Prepare(c *config.Config) (commit, discard func(), err error) {
	return func() { l.apply(c.Log) }, func() {}, nil
}

func (l *journal) apply(o config.Log) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.Level)); err != nil {
		panic("BUG: unchecked log level " + o.Level)
	}
	l.level.Set(level)
	l.json.Store(o.Format == "json")
}

// format is a slog.Handler that writes text or JSON, as is set at the time.
type format struct {
	settings   *journal
	text, json slog.Handler
}

func (f format) now() slog.Handler {
	if f.settings.json.Load() {
		return f.json
	}
	return f.text
}

func (f format) Enabled(ctx context.Context, l slog.Level) bool { return f.now().Enabled(ctx, l) }

func (f format) Handle(ctx context.Context, r slog.Record) error { return f.now().Handle(ctx, r) }

func (f format) WithAttrs(a []slog.Attr) slog.Handler {
	return format{f.settings, f.text.WithAttrs(a), f.json.WithAttrs(a)}
}

func (f format) WithGroup(name string) slog.Handler {
	return format{f.settings, f.text.WithGroup(name), f.json.WithGroup(name)}
}
