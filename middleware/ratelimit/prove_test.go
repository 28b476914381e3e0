//go:build prove

package ratelimit

import "testing"

// TestProveTenMillionKeys is TestMemoryIsBounded with ten million keys and the
// default of max_keys:
//
//	make prove-limit
func TestProveTenMillionKeys(t *testing.T) {
	attack(t, "local", 10_000_000, 1_000_000)
	attack(t, "redis", 10_000_000, 1_000_000)
}
