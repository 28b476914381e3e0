package upstream

import "testing"

// What a pool counts by processor takes room from another pool's limit.
func TestLimitCountsWhatIsCountedApart(t *testing.T) {
	o := new(origin)
	o.load.expect()
	limited, free := &Server{origin: o, limit: 2, exact: true}, &Server{origin: o}
	if !free.enter() || !limited.enter() || limited.enter() {
		t.Error("the limit of 2 does not hold with one request of each pool")
	}
	if n := limited.InFlight(); n != 2 {
		t.Errorf("%d in flight, want 2", n)
	}
	free.exit()
	if !limited.enter() || limited.enter() {
		t.Error("the room that the other pool has left is not there, or too much of it")
	}
	limited.exit()
	limited.exit()
	free.exit() // once too often: it must not go unseen
	if n := free.InFlight(); n != -1 {
		t.Errorf("%d in flight, want -1", n)
	}
}
