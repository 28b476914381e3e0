// Package health turns results of checks into health, by rise and fall: it
// takes some results in a row to change one's mind, so that a single lost
// packet takes nothing out of use, and a single lucky answer brings nothing
// back.
package health

// State is what checks say of what they check.
type State uint32

// The states of something that is checked.
const (
	Unknown State = iota // not checked, or not checked yet; counts as up
	Up
	Down
)

// String is the state's name in status and logs.
func (s State) String() string {
	return [...]string{"unknown", "up", "down"}[s]
}

// Checker is what follows from the checks so far. The zero value is that of
// something that has not been checked. Not safe for concurrent use.
type Checker struct {
	State  State
	Streak int // results in a row that contradict State
}

// Next takes the result of another check. The first result decides alone; then
// it takes so many fails, or passes, in a row to contradict the present state.
func (c *Checker) Next(passed bool, fails, passes int) State {
	seen, needed := Down, fails
	if passed {
		seen, needed = Up, passes
	}
	if seen == c.State {
		c.Streak = 0
		return c.State
	}
	if c.Streak++; c.State == Unknown || c.Streak >= needed {
		c.State, c.Streak = seen, 0
	}
	return c.State
}
