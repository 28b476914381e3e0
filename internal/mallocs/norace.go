//go:build !race

package mallocs

// Race says that the race detector is on, which allocates and takes its time.
const Race = false
