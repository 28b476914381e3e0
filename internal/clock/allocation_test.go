package clock

import (
	"testing"

	"gateway/internal/mallocs"
)

func TestReadersAllocateNothing(t *testing.T) {
	Coarse()
	within(t, "the clock woke", func() bool { return coarse.Load() != 0 })
	b := make([]byte, 0, 64)
	var sum int64
	mallocs.None(t, "reading the clock", 20_000, func() {
		sum += Mono() + Coarse() + Unix() + int64(len(HTTPDate())) + Wall().Unix()
		b = AppendRFC3339(b[:0], sum)
	})
}
