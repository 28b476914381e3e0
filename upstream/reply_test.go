package upstream

import (
	"testing"
	"time"
)

func TestBuffersOfAStreamFollowItsReader(t *testing.T) {
	f := func(have int, full bool, took time.Duration, want int) {
		t.Helper()
		p := &reply{buf: make([]byte, minBuffer), from: 100, grow: full}
		if have > 0 {
			p.body = &buffer{b: make([]byte, have)}
			p.buf, p.from = p.body.b, 0
		}
		if got := p.suits(took); got != want {
			t.Errorf("%d bytes, full %v, taken in %s: %d, want %d", have, full, took, got, want)
		}
	}
	const fast, slow = time.Millisecond, time.Second
	// A reader who is fast gets larger ones for as long as they are full.
	f(0, false, fast, 0)
	f(0, true, fast, 32<<10)
	f(32<<10, false, fast, 32<<10)
	f(32<<10, true, fast, 64<<10)
	f(64<<10, true, fast, 256<<10)
	f(256<<10, true, fast, 256<<10)
	f(256<<10, false, fast, 256<<10)
	// One who is slow holds 64 KiB at most.
	f(0, true, slow, 32<<10)
	f(32<<10, true, slow, 64<<10)
	f(64<<10, true, slow, 64<<10)
	f(256<<10, true, slow, 64<<10)
	f(256<<10, false, slow, 64<<10)
	// In between all stays as it is.
	f(64<<10, true, 20*time.Millisecond, 64<<10)
	f(256<<10, true, 20*time.Millisecond, 256<<10)

	p := &reply{buf: make([]byte, minBuffer), from: minBuffer - 1}
	if got := p.suits(fast); got != 32<<10 {
		t.Errorf("no room behind the head: %d", got)
	}
}

func TestPipesAreForThoseWhoAreFast(t *testing.T) {
	const never = time.Hour
	for _, c := range []struct {
		p    reply
		took time.Duration
		want bool
	}{
		{reply{left: minPass, grow: true}, never, true}, // nothing was taken yet
		{reply{left: minPass - 1, grow: true}, never, false},
		{reply{left: minPass}, never, false}, // a read was enough
		{reply{left: minPass, grow: true, filled: 1}, brisk - 1, true},
		{reply{left: minPass, grow: true, filled: 1}, brisk, false},
		{reply{left: 1, filled: 1, piped: minPiped}, sluggish - 1, true}, // goes on to the end
		{reply{left: minPass, filled: 1, piped: minPiped}, sluggish, false},
		{reply{left: minPass, filled: 1, piped: minPiped - 1}, 0, false}, // little comes at a time
	} {
		if got := c.p.passes(c.took); got != c.want {
			t.Errorf("%+v, %s: %v", c.p, c.took, got)
		}
	}
}
