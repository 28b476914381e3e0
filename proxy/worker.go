package proxy

import "sync"

// task is work that no client waits for.
type task interface {
	run()
	// cancel makes run end soon. It must not wait.
	cancel()
	// drop is called instead of run when it is not done at all.
	drop()
}

// maxTasks bounds the tasks that wait for a worker; further ones are refused.
const maxTasks = 1024

// workers do tasks, so many at a time. They are goroutines that exist while
// there is something to do.
type workers struct {
	mu      sync.Mutex // never held across a task
	limit   int
	closed  bool
	waiting []task
	active  map[task]struct{}
	ended   sync.WaitGroup
}

// resize says how many tasks are done at a time.
func (w *workers) resize(limit int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit = limit
	for len(w.waiting) > 0 && len(w.active) < w.limit {
		w.begin(w.next())
	}
}

// submit has a task done, soon. False when there are too many already.
func (w *workers) submit(t task) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return false
	case len(w.active) < w.limit:
		w.begin(t)
	case len(w.waiting) < maxTasks:
		w.waiting = append(w.waiting, t)
	default:
		return false
	}
	return true
}

func (w *workers) next() task {
	t := w.waiting[0]
	w.waiting[0] = nil
	w.waiting = w.waiting[1:]
	return t
}

// begin starts a worker. w is locked.
func (w *workers) begin(t task) {
	if w.active == nil {
		w.active = make(map[task]struct{})
	}
	w.active[t] = struct{}{}
	w.ended.Add(1)
	go func() {
		defer w.ended.Done()
		for t != nil {
			t.run()
			w.mu.Lock()
			delete(w.active, t)
			t = nil
			if len(w.waiting) > 0 && len(w.active) < w.limit {
				t = w.next()
				w.active[t] = struct{}{}
			}
			w.mu.Unlock()
		}
	}()
}

// close ends all tasks and waits for those that have begun.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	for t := range w.active {
		t.cancel()
	}
	waiting := w.waiting
	w.waiting = nil
	w.mu.Unlock()
	for _, t := range waiting {
		t.drop()
	}
	w.ended.Wait()
}
