package accesslog

import (
	"testing"

	"gateway/internal/mallocs"
)

func TestLogAllocatesNothing(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		l := start(t, Options{Output: "/dev/null", Format: format, Query: true}, nil)
		r := example()
		for range 50_000 { // buffers grow to their size
			l.Log(r)
		}
		mallocs.None(t, format, 50_000, func() { l.Log(r) })
	}
}
