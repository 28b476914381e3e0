package proxy

import (
	"fmt"
	"strings"
	"testing"
)

// A reload changes what it can of the cache, and says what it cannot.
func TestCacheOptionsAndReloads(t *testing.T) {
	o := respondWith(t, cacheable(strings.Repeat("x", 3000)))
	config := func(memory, object string) string {
		return app(o.Address) + strings.Replace(caching("true"), `memory = "8MiB"`, fmt.Sprintf("memory = %q\nmax_object = %q", memory, object), 1)
	}
	r := begin(t, config("8MiB", "1MiB"))
	warnings := func() int {
		return strings.Count(r.log.String(), "cache.memory takes effect when the gateway is restarted")
	}
	detail := func(path string) string {
		_, detail, _ := strings.Cut(r.get(path).status(), "detail=")
		return detail
	}
	if d := detail("/a"); d != "" {
		t.Errorf("not stored: %s", d)
	}
	r.reload("%s", config("8MiB", "2KiB"))
	if d := detail("/b"); d != "too-large" {
		t.Errorf("max_object is 2KiB: detail %q", d)
	}
	r.get("/a").expect(t, 200, strings.Repeat("x", 3000), "hit") // what is stored stays
	r.reload("%s", config("8MiB", "4MiB"))
	if d := detail("/c"); d != "" {
		t.Errorf("not stored: %s", d)
	}
	if n := warnings(); n != 0 {
		t.Errorf("%d warnings although the memory is what it was", n)
	}
	capacity := r.cache.Stats().Capacity
	r.reload("%s", config("16MiB", "4MiB"))
	if n := warnings(); n != 1 || !strings.Contains(r.log.String(), "configured=16MiB in_effect=8MiB") {
		t.Errorf("%d warnings when the memory is to be another:\n%s", n, r.log)
	}
	r.reload("%s", config("16MiB", "3MiB")) // still so
	if n := warnings(); n != 2 {
		t.Errorf("%d warnings after the next reload", n)
	}
	if n := r.cache.Stats().Capacity; n != capacity {
		t.Errorf("the memory went from %d to %d bytes", capacity, n)
	}
	r.get("/c").expect(t, 200, strings.Repeat("x", 3000), "hit")
	r.reload("%s", config("8MiB", "4MiB"))
	if n := warnings(); n != 2 {
		t.Errorf("%d warnings although the memory is again what it was", n)
	}
}
