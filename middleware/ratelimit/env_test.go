package ratelimit

import (
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"testing"

	"gateway/metrics"
)

func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

func newTestRegistry(t testing.TB) *Registry {
	t.Helper()
	return NewRegistry(metrics.New(), slog.New(slog.NewTextHandler(io.Discard, nil)))
}

// build makes policies and puts them to work until the test ends.
func build(t testing.TB, r *Registry, policies map[string]Options, redis RedisOptions) *Set {
	t.Helper()
	set, err := r.Build(policies, redis)
	if err != nil {
		t.Fatal(err)
	}
	set.Commit()
	t.Cleanup(func() {
		if r.current == set {
			set.Close()
		}
	})
	return set
}
