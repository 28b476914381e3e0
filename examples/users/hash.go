package users

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"
)

// maxHashing bounds the passwords that wait for a worker, over all requests.
const maxHashing = 1000

// hasher hashes passwords on a fixed number of goroutines: bcrypt takes tens
// of milliseconds of CPU each, and a burst of new users must not take the CPU
// away from everything else.
type hasher struct {
	cost    int
	jobs    chan hashJob
	quit    chan struct{}
	waiting atomic.Int64
	workers sync.WaitGroup
}

type hashJob struct {
	ctx      context.Context
	row      int
	password string
	done     chan<- hashed // has room: a worker never waits for it
}

type hashed struct {
	row  int
	hash string
	err  error
}

// newHasher starts the workers; 0 means one for each CPU.
func newHasher(workers, cost int) *hasher {
	h := &hasher{cost: cost, jobs: make(chan hashJob), quit: make(chan struct{})}
	for range or(workers, runtime.GOMAXPROCS(0)) {
		h.workers.Go(h.work)
	}
	return h
}

func (h *hasher) work() {
	for {
		select {
		case <-h.quit:
			return
		case j := <-h.jobs:
			if j.ctx.Err() != nil {
				continue // nobody waits for it any more
			}
			hash, err := bcrypt.GenerateFromPassword([]byte(j.password), h.cost)
			j.done <- hashed{j.row, string(hash), err}
		}
	}
}

// hash replaces the passwords of drafts by their hashes.
func (h *hasher) hash(ctx context.Context, drafts []Draft) error {
	n := 0
	for i := range drafts {
		if drafts[i].Password != "" {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	defer h.waiting.Add(int64(-n))
	if h.waiting.Add(int64(n)) > maxHashing {
		return fmt.Errorf("hash passwords: %w: too many are waiting", ErrUnavailable)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // after the first failure the rest is not worth its CPU
	done := make(chan hashed, n)
	sent, next := 0, 0
	for received := 0; received < n; {
		var jobs chan<- hashJob // nil when all are sent
		var job hashJob
		if sent < n {
			for drafts[next].Password == "" {
				next++
			}
			jobs, job = h.jobs, hashJob{ctx, next, drafts[next].Password, done}
		}
		select {
		case jobs <- job:
			sent++
			next++
		case r := <-done:
			if r.err != nil {
				return fmt.Errorf("hash password: %w", r.err)
			}
			received++
			drafts[r.row].PasswordHash, drafts[r.row].Password = r.hash, ""
		case <-h.quit:
			return fmt.Errorf("hash passwords: %w: the service is stopping", ErrUnavailable)
		case <-ctx.Done():
			return fmt.Errorf("hash passwords: %w: %w", ErrUnavailable, ctx.Err())
		}
	}
	return nil
}

// close ends the workers and every hash that is still running.
func (h *hasher) close() {
	close(h.quit)
	h.workers.Wait()
}
