package mallocs

import (
	"strings"
	"testing"
)

// failure keeps what None reports.
type failure struct {
	testing.TB
	text string
}

func (f *failure) Helper()                      {}
func (f *failure) Errorf(text string, _ ...any) { f.text += text }

func TestOneAllocationInAHundredRunsIsNoticed(t *testing.T) {
	if Race {
		t.Skip("the race detector allocates")
	}
	f := &failure{TB: t}
	None(f, "nothing", 10_000, func() {})
	if f.text != "" {
		t.Errorf("work without allocations: %s", f.text)
	}
	n := 0
	var kept *[64]byte
	None(f, "something", 10_000, func() {
		if n++; n%100 == 0 {
			kept = new([64]byte)
		}
	})
	if kept == nil || !strings.Contains(f.text, "allocations") {
		t.Errorf("a hundred allocations were not noticed: %q", f.text)
	}
}
