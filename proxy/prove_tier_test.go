//go:build prove

package proxy

import (
	"testing"
	"time"
)

// TestProveTier is TestTierOutagesFailNothing with the default deadline, on a
// machine that does nothing else: whatever becomes of Redis, the slowest request
// is no slower than the slowest with Redis well, by more than the deadline.
//
//	make prove-cache
func TestProveTier(t *testing.T) {
	const deadline = 10 * time.Millisecond
	took := tierOutages(t, deadline)
	for name, slowest := range took {
		if most := took["well"] + deadline; slowest > most {
			t.Errorf("%s: the slowest request took %v, want at most %v", name, slowest, most)
		}
	}
}
