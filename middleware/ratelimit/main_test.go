package ratelimit

import (
	"flag"
	"os"
	"strconv"
	"sync"
	"testing"
)

// TestMain has more tests run at the same time than there are cores: most of
// those that are parallel wait for time to pass.
func TestMain(m *testing.M) {
	flag.Parse()
	parallel := flag.Lookup("test.parallel").Value
	if n, _ := strconv.Atoi(parallel.String()); n < 16 {
		_ = parallel.Set("16")
	}
	os.Exit(m.Run())
}

var core sync.Mutex

// takeCore makes a test parallel that computes all the time. One such test runs
// at a time, beside those that wait: they need a core that is free.
func takeCore(t *testing.T) {
	t.Parallel()
	core.Lock()
	t.Cleanup(core.Unlock)
}
