//go:build race

package users

// raceEnabled says that allocations cannot be counted.
const raceEnabled = true
