package cache

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/unit"
	"gateway/wire"
)

// read is the whole body of a shared response.
func read(r *Reader) (string, error) {
	var b strings.Builder
	for {
		piece, err := r.Next()
		b.Write(piece)
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
	}
}

// crowd is a leader and n waiters of one response; work is what each waiter
// does with its reader. It returns the leader's flight and a function that waits
// for them.
func crowd(y *play, n int, work func(l *Lookup, q *wire.Request, r *Reader)) (*Flight, func()) {
	y.Helper()
	q := ask(y, "GET /crowd")
	if v := y.look("GET /crowd"); v != Miss {
		y.Fatal("verdict", v)
	}
	role, f, _ := y.c.Begin(&y.l, q, y.now, true)
	if role != Lead {
		y.Fatal("role", role)
	}
	var done sync.WaitGroup
	var joined atomic.Int64 // some may have left again when the last one comes
	for range n {
		done.Add(1)
		go func() {
			defer done.Done()
			var l Lookup
			q := ask(y, "GET /crowd")
			if v := y.c.Lookup(&l, y.p, q, urlOf(q), nil, y.now); v != Miss {
				y.Error("verdict", v)
				return
			}
			role, _, r := y.c.Begin(&l, q, y.now, true)
			if role != Wait {
				y.Error("role", role)
				return
			}
			joined.Add(1)
			defer r.Close()
			work(&l, q, r)
		}()
	}
	await(y, "the waiters", func() bool { return joined.Load() == int64(n) })
	return f, done.Wait
}

func TestAHundredWaitersStreamOneResponse(t *testing.T) {
	y := newPlay(t, policy())
	var begun, whole atomic.Int32
	body := strings.Repeat("0123456789", 50_000)
	f, wait := crowd(y, 100, func(l *Lookup, q *wire.Request, r *Reader) {
		if s := r.Wait(l, q, y.now); s != ShareBody {
			y.Error("share", s)
			return
		}
		first, err := r.Next()
		begun.Add(1)
		rest, err2 := read(r)
		if got := string(first) + rest; got != body || err != nil || err2 != nil || r.Head().Status() != 200 {
			y.Errorf("%d bytes, %v, %v", len(got), err, err2)
			return
		}
		if string(r.Trailer()) != "X: 1\r\n" {
			y.Errorf("trailer %q", r.Trailer())
		}
		whole.Add(1)
	})
	if reason := f.Response(y.origin(200, fresh, `ETag: "a"`), -1); reason != Storable {
		t.Fatal(reason)
	}
	write := func(s string) {
		t.Helper()
		if err := f.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	write(body[:1000])
	await(t, "all to stream", func() bool { return begun.Load() == 100 }) // while the rest is to come
	for at := 1000; at < len(body); at += 7000 {
		write(body[at:min(at+7000, len(body))])
	}
	if reason := f.Finish([]byte("X: 1\r\n")); reason != Storable {
		t.Error(reason)
	}
	wait()
	if whole.Load() != 100 {
		t.Errorf("%d have the whole body", whole.Load())
	}
	y.expect(Hit, body, "GET /crowd")
	if n := y.c.filling.Load(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}

func TestPrivateResponsesLetWaitersGoSideBySide(t *testing.T) {
	y := newPlay(t, policy())
	var alone atomic.Int32
	together := make(chan struct{})
	f, wait := crowd(y, 99, func(l *Lookup, q *wire.Request, r *Reader) {
		if s := r.Wait(l, q, y.now); s != ShareNone {
			y.Error("share", s)
		}
		r.Close()
		role, own, _ := y.c.Begin(l, q, y.now, false)
		if role != Alone {
			y.Error("role", role)
		}
		// All of them are at the origin at the same time.
		if alone.Add(1) == 99 {
			close(together)
		}
		<-together
		if reason := own.Whole(y.origin(200, "Cache-Control: private, max-age=60"), []byte("mine")); reason != ResponsePrivate {
			y.Error(reason)
		}
	})
	if reason := f.Response(y.origin(200, "Cache-Control: private, max-age=60"), 4); reason != ResponsePrivate {
		t.Fatal(reason)
	}
	wait() // before the leader has its body
	f.Finish(nil)
	// The next wave does not wait for anybody.
	look := func() Role {
		y.look("GET /crowd")
		role, f, _ := y.c.Begin(&y.l, ask(t, "GET /crowd"), y.now, true)
		defer f.Fail(io.EOF)
		return role
	}
	if role := look(); role != Alone {
		t.Error("role", role)
	}
	y.pass(11)
	if role := look(); role != Lead {
		t.Error("later: role", role)
	}
	// What can be shared after all is stored, and the memory forgets.
	f.remember(y.now + 100*second)
	y.look("GET /crowd")
	_, own, _ := y.c.Begin(&y.l, ask(t, "GET /crowd"), y.now, true)
	if reason := own.Whole(y.origin(200, fresh), []byte("ours")); reason != Storable {
		t.Error(reason)
	}
	y.expect(Hit, "ours", "GET /crowd")
	y.c.PurgeURL([]*Policy{y.p}, urlOf(ask(t, "GET /crowd")), false)
	if role := look(); role != Lead {
		t.Error("after one that is shared: role", role)
	}
}

func TestRequestsDoNotMakeOthersUncacheable(t *testing.T) {
	y := newPlay(t, policy())
	for _, line := range []string{"Authorization: Basic x", "Cache-Control: no-store"} {
		y.look("GET /", line)
		if _, f, _ := y.c.Begin(&y.l, ask(t, "GET /", line), y.now, true); f != nil {
			f.Whole(y.origin(200, fresh), []byte("secret"))
		}
		y.look("GET /")
		role, f, _ := y.c.Begin(&y.l, ask(t, "GET /"), y.now, true)
		if role != Lead {
			t.Errorf("after %s: role %d", line, role)
		}
		f.Pass()
	}
}

func TestTruncatedResponsesAreNotStored(t *testing.T) {
	for name, end := range map[string]func(f *Flight){
		"failed":    func(f *Flight) { f.Fail(io.ErrUnexpectedEOF) },
		"too short": func(f *Flight) { f.Finish(nil) },
		"too long": func(f *Flight) {
			if err := f.Write(make([]byte, 10)); err == nil {
				t.Error("more than was announced")
			}
			f.Fail(io.ErrUnexpectedEOF)
		},
	} {
		y := newPlay(t, policy())
		var begun, failed atomic.Int32
		f, wait := crowd(y, 10, func(l *Lookup, q *wire.Request, r *Reader) {
			if s := r.Wait(l, q, y.now); s != ShareBody {
				y.Error("share", s)
				return
			}
			begun.Add(1)
			if got, err := read(r); err == nil || got != "half" {
				y.Errorf("%s: %q, %v", name, got, err)
				return
			}
			failed.Add(1)
		})
		f.Response(y.origin(200, fresh), 8)
		if err := f.Write([]byte("half")); err != nil {
			t.Fatal(err)
		}
		await(t, "the head to be shared", func() bool { return begun.Load() == 10 })
		end(f)
		wait()
		if failed.Load() != 10 {
			t.Errorf("%s: %d waiters know", name, failed.Load())
		}
		y.expect(Miss, "", "GET /crowd")
		if n := y.c.filling.Load(); n != 0 {
			t.Errorf("%s: %d bytes are still counted", name, n)
		}
	}
}

func TestFailuresBeforeTheHead(t *testing.T) {
	y := newPlay(t, policy())
	boom := errors.New("boom")
	f, wait := crowd(y, 10, func(l *Lookup, q *wire.Request, r *Reader) {
		if s := r.Wait(l, q, y.now); s != ShareFailed || r.Err() != boom {
			y.Error("share", s, r.Err())
		}
	})
	f.Fail(boom)
	wait()
	// A leader that gave up is followed by one of the waiters.
	var leaders atomic.Int32
	f, wait = crowd(y, 10, func(l *Lookup, q *wire.Request, r *Reader) {
		for {
			switch s := r.Wait(l, q, y.now); s {
			case ShareAgain:
				r.Close()
				if y.c.Lookup(l, y.p, q, urlOf(q), nil, y.now) == Hit {
					l.Release()
					return
				}
				role, f, next := y.c.Begin(l, q, y.now, true)
				if role == Lead {
					leaders.Add(1)
					f.Whole(y.origin(200, fresh), []byte("x"))
					return
				}
				if role == Again {
					continue
				}
				r = next
				defer r.Close()
			case ShareBody:
				if got, err := read(r); got != "x" || err != nil {
					y.Error(got, err)
				}
				return
			default:
				y.Error("share", s)
				return
			}
		}
	})
	f.Pass()
	wait()
	if leaders.Load() != 1 {
		t.Errorf("%d leaders", leaders.Load())
	}
}

func TestWhoeverMissedJustBeforeALandingLooksAgain(t *testing.T) {
	y := newPlay(t, policy())
	q := ask(t, "GET /late")
	var late Lookup
	if v := y.c.Lookup(&late, y.p, q, urlOf(q), nil, y.now); v != Miss {
		t.Fatal("verdict", v)
	}
	y.look("GET /late")
	_, f, _ := y.c.Begin(&y.l, q, y.now, true)
	if reason := f.Whole(y.origin(200, fresh), []byte("x")); reason != Storable {
		t.Fatal(reason)
	}
	if role, _, _ := y.c.Begin(&late, q, y.now, true); role != Again {
		t.Fatal("role", role)
	}
	if v := y.c.Lookup(&late, y.p, q, urlOf(q), nil, y.now); v != Hit {
		t.Error("verdict", v)
	}
	late.Release()
	// Nor does a landing send anybody in circles that stored nothing for him.
	y.look("GET /none")
	_, f, _ = y.c.Begin(&y.l, ask(t, "GET /none"), y.now, true)
	f.Pass()
	y.look("GET /none")
	if role, f, _ := y.c.Begin(&y.l, ask(t, "GET /none"), y.now, true); role != Lead {
		t.Error("role", role)
	} else {
		f.Pass()
	}
}

func TestWaitersHaveATimeLimit(t *testing.T) {
	y := newPlay(t, policy())
	y.c = newCache(t, func(o *Options) { o.CollapseTimeout = 20 * time.Millisecond })
	f, wait := crowd(y, 3, func(l *Lookup, q *wire.Request, r *Reader) {
		if s := r.Wait(l, q, y.now); s != ShareNone {
			y.Error("share", s)
		}
	})
	wait()
	f.Pass()
}

func TestWaitersTakeOnlyWhatTheyWouldFind(t *testing.T) {
	y := newPlay(t, policy())
	lead := func() *Flight {
		y.look("GET /", "Foo: 1")
		_, f, _ := y.c.Begin(&y.l, ask(t, "GET /", "Foo: 1"), y.now, true)
		return f
	}
	f := lead()
	type waiter struct {
		l    Lookup
		q    *wire.Request
		r    *Reader
		want Shared
	}
	var waiters []*waiter
	for want, lines := range map[Shared][]string{ShareBody: {"Foo: 1"}, ShareNone: {"Foo: 2"}} {
		w := &waiter{q: ask(t, "GET /", lines...), want: want}
		y.c.Lookup(&w.l, y.p, w.q, urlOf(w.q), nil, y.now)
		_, _, w.r = y.c.Begin(&w.l, w.q, y.now, true)
		waiters = append(waiters, w)
	}
	f.Response(y.origin(200, fresh, "Vary: Foo"), 1)
	for _, w := range waiters {
		if got := w.r.Wait(&w.l, w.q, y.now); got != w.want {
			t.Errorf("share %d, want %d", got, w.want)
		}
		w.r.Close()
	}
	f.Fail(io.EOF)
	// What has to be validated each time is for one request only.
	f = lead()
	w := &waiter{q: ask(t, "GET /", "Foo: 1")}
	y.c.Lookup(&w.l, y.p, w.q, urlOf(w.q), nil, y.now)
	_, _, w.r = y.c.Begin(&w.l, w.q, y.now, true)
	f.Response(y.origin(200, "Cache-Control: no-cache", `ETag: "a"`), 1)
	if got := w.r.Wait(&w.l, w.q, y.now); got != ShareNone {
		t.Error("share", got)
	}
	w.r.Close()
	f.Fail(io.EOF)
}

func TestLargeResponsesStreamPastSlowReaders(t *testing.T) {
	y := newPlay(t, policy())
	y.c = newCache(t, func(o *Options) { o.MaxObject = 64 * unit.KiB })
	if f, wait := crowd(y, 1, func(l *Lookup, q *wire.Request, r *Reader) {
		if s := r.Wait(l, q, y.now); s != ShareNone {
			y.Error("share", s)
		}
	}); f.Response(y.origin(200, fresh), 1<<20) != TooLarge {
		t.Error("announced as too large")
	} else {
		wait()
		f.Finish(nil)
	}
	y.pass(11)
	const total = 4 << 20
	var got atomic.Int64
	f, wait := crowd(y, 2, func(l *Lookup, q *wire.Request, r *Reader) {
		if s := r.Wait(l, q, y.now); s != ShareBody {
			y.Error("share", s)
			return
		}
		body, err := read(r)
		if err != nil {
			y.Error(err)
		}
		got.Add(int64(len(body)))
	})
	f.Response(y.origin(200, fresh), -1)
	piece := make([]byte, 10_000)
	for n := 0; n < total; n += len(piece) {
		if err := f.Write(piece[:min(len(piece), total-n)]); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		if f.held > 512<<10 {
			t.Errorf("%d bytes held", f.held)
		}
		f.mu.Unlock()
	}
	if reason := f.Finish(nil); reason != TooLarge {
		t.Error(reason)
	}
	wait()
	if got.Load() != 2*total {
		t.Errorf("%d bytes read", got.Load())
	}
	y.expect(Miss, "", "GET /crowd")
	if n := y.c.filling.Load(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}

func TestReadersThatStallAreCutOff(t *testing.T) {
	y := newPlay(t, policy())
	y.c = newCache(t, func(o *Options) { o.MaxObject = 64 * unit.KiB })
	y.c.stall = 20 * time.Millisecond
	f, wait := crowd(y, 1, func(l *Lookup, q *wire.Request, r *Reader) {
		r.Wait(l, q, y.now)
		await(y, "to be cut off", func() bool { return r.f.Waiting() == 0 })
		if _, err := read(r); err != ErrSlowReader {
			y.Error(err)
		}
	})
	f.Response(y.origin(200, fresh), -1)
	var err error
	for n := 0; n < 4<<20 && err == nil; n += 1 << 16 {
		err = f.Write(make([]byte, 1<<16))
	}
	if err != ErrUnwanted {
		t.Error(err)
	}
	f.Fail(err)
	wait()
}

func TestALeaderReadsLikeTheOthers(t *testing.T) {
	y := newPlay(t, policy())
	y.look("GET /")
	q := ask(t, "GET /")
	_, f, _ := y.c.Begin(&y.l, q, y.now, true)
	r := f.Reader()
	go func() { // detached from the client
		f.Response(y.origin(200, fresh), 5)
		if err := f.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		f.Finish(nil)
	}()
	if s := r.Wait(&y.l, q, y.now); s != ShareBody {
		t.Fatal("share", s)
	}
	if got, err := read(r); got != "hello" || err != nil {
		t.Error(got, err)
	}
	r.Close()
	y.expect(Hit, "hello", "GET /")
	// It leaves: the fill goes on as long as it is going to be stored.
	y.pass(100)
	y.look("GET /")
	_, f, _ = y.c.Begin(&y.l, q, y.now, true)
	r = f.Reader()
	r.Close()
	f.Response(y.origin(200, fresh), 5)
	if !f.Wanted() {
		t.Error("nobody wants it")
	}
	if err := f.Write([]byte("world")); err != nil {
		t.Error(err)
	}
	f.Finish(nil)
	y.expect(Hit, "world", "GET /")
}

func TestValidationsDoNotQueue(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "x", "Cache-Control: no-cache", `ETag: "a"`)
	q := ask(t, "GET /")
	y.pass(20)
	if v := y.look("GET /"); v != Validate {
		t.Fatal(v)
	}
	role, f, _ := y.c.Begin(&y.l, q, y.now, true)
	if role != Lead {
		t.Fatal("role", role)
	}
	var l Lookup
	defer l.Release()
	y.c.Lookup(&l, y.p, q, urlOf(q), nil, y.now)
	role, _, r := y.c.Begin(&l, q, y.now, true)
	if role != Wait {
		t.Fatal("role", role)
	}
	defer r.Close()
	e, reason, ok := f.NotModified(&y.l.Entry, y.origin(304, `ETag: "a"`))
	if !ok || reason != Storable {
		t.Error(ok, reason)
	}
	e.Release()
	if s := r.Wait(&l, q, y.now); s != ShareNone {
		t.Error("share", s)
	}
	for range 2 { // and the next ones go side by side
		role, f, _ := y.c.Begin(&l, q, y.now, true)
		if role != Alone || f == nil {
			t.Error("role", role)
		}
		defer f.Fail(io.EOF)
	}
	y.l.Release()
}

func TestAuthorizedValidationsLeaveWhatIsStored(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "x", fresh, `ETag: "a"`)
	line := []string{"Authorization: Basic x", "Cache-Control: no-cache"}
	if v := y.look("GET /", line...); v != Validate {
		t.Fatal(v)
	}
	_, f, _ := y.c.Begin(&y.l, ask(t, "GET /", line...), y.now, true)
	e, reason, ok := f.NotModified(&y.l.Entry, y.origin(304, `ETag: "a"`))
	if !ok || reason != Authorized || string(e.Body()) != "x" {
		t.Error(ok, reason)
	}
	e.Release()
	y.expect(Hit, "x", "GET /")
}

func TestOneRefreshAtATime(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "x", "Cache-Control: max-age=60, stale-while-revalidate=60", `ETag: "a"`)
	y.pass(70)
	q := ask(t, "GET /")
	if v := y.look("GET /"); v != HitRefresh {
		t.Fatal(v)
	}
	f, begun := y.c.Refresh(&y.l, q)
	if !begun {
		t.Fatal("no refresh")
	}
	if _, again := y.c.Refresh(&y.l, q); again {
		t.Error("two refreshes")
	}
	e, reason, ok := f.NotModified(&y.l.Entry, y.origin(304, `ETag: "a"`))
	if !ok || reason != Storable {
		t.Error(reason, ok)
	}
	e.Release()
	y.expect(Hit, "x", "GET /")
}

func TestWhatChangedWhileItWasReceivedIsNotStored(t *testing.T) {
	purges := map[string]func(y *play, u *URL){
		"unsafe method": func(y *play, u *URL) {
			y.c.Invalidate([]*Policy{y.p}, wire.MethodPost, u, 200, fields(t), nil)
		},
		"url":    func(y *play, u *URL) { y.c.PurgeURL([]*Policy{y.p}, u, false) },
		"tag":    func(y *play, u *URL) { y.c.PurgeTag("b", false) },
		"host":   func(y *play, u *URL) { y.c.PurgeHost("example.com", false) },
		"prefix": func(y *play, u *URL) { y.c.PurgePrefix("example.com", "/", false) },
		"all":    func(y *play, u *URL) { y.c.PurgeAll(false) },
	}
	for name, purge := range purges {
		y := newPlay(t, policy())
		q := ask(t, "GET /")
		y.look("GET /")
		_, f, _ := y.c.Begin(&y.l, q, y.now, true)
		purge(y, urlOf(q))
		await(t, "the walk", func() bool {
			y.c.purges.mu.RLock()
			defer y.c.purges.mu.RUnlock()
			return y.c.purges.swept == y.c.purges.sequence.Load()
		})
		if reason := f.Whole(y.origin(200, fresh, "Surrogate-Key: a b"), []byte("old")); reason == Storable {
			t.Errorf("%s: stored", name)
		}
		y.expect(Miss, "", "GET /")
		y.fill("GET /", nil, 200, "new", fresh, "Surrogate-Key: a b")
		y.expect(Hit, "new", "GET /")
	}
}

func TestFlightsUnderLoad(t *testing.T) {
	y := newPlay(t, policy())
	var work sync.WaitGroup
	var origin atomic.Int32
	for g := range 8 {
		work.Add(1)
		go func() {
			defer work.Done()
			var l Lookup
			for i := range 300 {
				path := fmt.Sprintf("/%d", i/3%40)
				q := ask(y, "GET "+path)
				u := urlOf(q)
				collapse := true
			again:
				switch y.c.Lookup(&l, y.p, q, u, nil, y.now) {
				case Hit:
					if string(l.Entry.Body()) != path {
						y.Errorf("%s: %q", path, l.Entry.Body())
					}
				case Miss, Validate:
					role, f, r := y.c.Begin(&l, q, y.now, collapse)
					switch role {
					case Lead, Alone:
						origin.Add(1)
						f.Response(y.origin(200, fresh, "Surrogate-Key: t"), -1)
						_ = f.Write([]byte(path[:1]))
						_ = f.Write([]byte(path[1:]))
						f.Finish(nil)
					case Wait:
						s := r.Wait(&l, q, y.now)
						if s == ShareBody {
							if got, err := read(r); got != path || err != nil {
								y.Errorf("%s: %q, %v", path, got, err)
							}
						}
						r.Close()
						if s == ShareAgain {
							goto again
						}
						if s == ShareNone {
							collapse = false
							goto again
						}
					case Again:
						goto again
					}
				default:
					y.Error(l.Verdict)
				}
				l.Release()
				switch {
				case g == 0 && i%50 == 0:
					y.c.PurgeTag("t", i%100 == 0)
				case g == 1 && i%20 == 0:
					y.c.PurgeURL([]*Policy{y.p}, u, false)
				}
			}
		}()
	}
	work.Wait()
	t.Logf("%d requests reached the origin", origin.Load())
	for i := range y.c.flights.shards {
		if n := len(y.c.flights.shards[i].flying); n != 0 {
			t.Errorf("%d flights left", n)
		}
	}
}

// A flight's memory serves the lookup's next flight, but not while others may
// still look at it.
func TestFlightMemoryIsUsedAgain(t *testing.T) {
	y := newPlay(t, policy())
	lead := func(path string, lines ...string) *Flight {
		t.Helper()
		if v := y.look("GET "+path, lines...); v != Miss {
			t.Fatal("verdict", v)
		}
		_, f, _ := y.c.Begin(&y.l, ask(t, "GET "+path, lines...), y.now, true)
		return f
	}
	first := lead("/a", "Accept: */*", "X-Long: "+strings.Repeat("x", 300))
	first.doomed.Store(true)
	if reason := first.Whole(y.origin(200, fresh, "X: first"), []byte("first")); reason != Outdated {
		t.Fatal(reason)
	}
	second := lead("/b", "Accept: text/html")
	if second != first {
		t.Error("the memory of a flight that only its driver knew was not used again")
	}
	if h := second.Request(); string(h.Get(wire.Accept)) != "text/html" || h.Find("X-Long") != nil {
		t.Error("the request's fields are another's")
	}
	var l Lookup
	q := ask(t, "GET /b")
	y.c.Lookup(&l, y.p, q, urlOf(q), nil, y.now)
	role, _, r := y.c.Begin(&l, q, y.now, true)
	if role != Wait {
		t.Fatal("role", role)
	}
	if reason := second.Whole(y.origin(200, fresh, "X: second"), []byte("second")); reason != Storable {
		t.Fatal(reason)
	}
	third := lead("/c")
	if third == second {
		t.Error("the memory of a flight that another reads was used again")
	}
	if reason := third.Response(y.origin(200, fresh, "X: third"), 5); reason != Storable {
		t.Fatal(reason)
	}
	if fourth := lead("/d"); fourth == third {
		t.Error("the memory of a flight under way was used again")
	} else {
		if fifth := lead("/e"); fifth == fourth {
			t.Error("the memory of a flight without an answer was used again")
		} else {
			fifth.Pass()
		}
		fourth.Pass()
	}
	if err := third.Write([]byte("third")); err != nil {
		t.Fatal(err)
	}
	third.Finish(nil)
	if s := r.Wait(&l, q, y.now); s != ShareBody {
		t.Fatal("share", s)
	}
	if body, err := read(r); body != "second" || err != nil || !strings.Contains(string(r.Head().Head()), "X: second") {
		t.Errorf("%q %v %q", body, err, r.Head().Head())
	}
	r.Close()
	y.expect(Miss, "", "GET /a") // it was doomed
	y.expect(Hit, "second", "GET /b")
	y.expect(Hit, "third", "GET /c")
	if n, _, _ := y.c.Flying(); n != 0 {
		t.Errorf("%d flights have not ended", n)
	}
}

// Flights whose names have one hash are told apart.
func TestFlightsOfOneHash(t *testing.T) {
	var d flightShard
	d.flying = make(map[uint64]*Flight)
	var all []*Flight
	for i := range 4 {
		f := newFlight()
		f.name, f.nameHash, f.next = []byte{byte(i)}, 7, d.flying[7]
		d.flying[7] = f
		all = append(all, f)
	}
	for n, gone := range []int{2, 3, 0, 1} { // from the middle, the front and the end of the chain
		d.remove(all[gone])
		d.remove(all[gone]) // again: nothing happens
		all[gone] = nil
		left := 0
		for i, f := range all {
			if found := d.find(7, []byte{byte(i)}); found != f {
				t.Errorf("flight %d after %d were removed: %v", i, n+1, found)
			}
			if f != nil {
				left++
			}
		}
		if (len(d.flying) == 0) != (left == 0) {
			t.Errorf("%d flights, %d heads of chains", left, len(d.flying))
		}
	}
}
