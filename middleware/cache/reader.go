package cache

import (
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"gateway/wire"
)

// Reader is a request's part in the flight of another. It is used by one
// goroutine and has to be closed.
type Reader struct {
	f       *Flight
	at      int64
	wake    chan struct{}
	timeout time.Duration
	timer   *time.Timer
	leader  bool
	err     error // set with the flight's lock
	left    atomic.Bool
	closed  bool
}

// Shared is how waiting ends.
type Shared uint8

const (
	ShareBody   Shared = iota // the response is for this request too: Head, then Next
	ShareAgain                // it is stored now, or the leader gave up: look up again
	ShareNone                 // it is for nobody else, or takes too long: ask the origin
	ShareFailed               // the origin failed: Err says how
)

func (r *Reader) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// pause waits for news; false when there was none in time.
func (r *Reader) pause(limit time.Duration) bool {
	if r.timer == nil {
		r.timer = time.NewTimer(limit)
	} else {
		r.timer.Reset(limit)
	}
	select {
	case <-r.wake:
		r.timer.Stop()
		return true
	case <-r.timer.C:
		return false
	}
}

// Wait waits for the head of the response, at most for collapse_timeout. l is
// the lookup that missed, q the request and now the time: a response that they
// would not have found in the cache is not shared.
func (r *Reader) Wait(l *Lookup, q *wire.Request, now int64) Shared {
	f := r.f
	begun := time.Now()
	for {
		f.mu.Lock()
		p := f.phase
		if f.alone && !r.leader {
			p = phaseAlone
		}
		f.mu.Unlock()
		switch p {
		case phaseSharing, phaseDone:
			if r.leader || f.suits(l, q, now) {
				return ShareBody
			}
			return ShareNone
		case phaseAgain:
			return ShareAgain
		case phaseAlone:
			return ShareNone
		case phaseFailed:
			return ShareFailed
		}
		if r.left.Load() || !r.pause(max(r.timeout-time.Since(begun), 0)) {
			return ShareNone
		}
	}
}

// suits reports whether a request would have found the response in the cache.
func (f *Flight) suits(l *Lookup, q *wire.Request, now int64) bool {
	if f.terms.May(&l.Asked.Control, max(now, f.terms.Received), false) != UseFresh {
		return false
	}
	vary := f.head.vary()
	if len(vary) == 0 {
		return true
	}
	at := f.head.u32(atPrimaryLen) + generationSize
	var scratch [512]byte
	return string(appendVariant(scratch[:0], vary, &q.Header)) == string(f.head.key()[at:])
}

// Head is the head of the response; valid until the reader is closed. Its
// BodyLen is -1 when the length is not known yet.
func (r *Reader) Head() *Entry { return &r.f.head }

// Err is why the flight failed.
func (r *Reader) Err() error {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.err
}

// Next is the next piece of the body, valid for as long as anybody likes;
// io.EOF at the end. Other errors say that the response ended early; the leader
// passes on that it came too slowly.
func (r *Reader) Next() ([]byte, error) {
	f := r.f
	for {
		f.mu.Lock()
		if r.err != nil {
			err := r.err
			f.mu.Unlock()
			return nil, err
		}
		if r.at < f.end {
			piece := f.piece(r.at)
			r.at += int64(len(piece))
			f.mu.Unlock()
			select {
			case f.space <- struct{}{}:
			default:
			}
			return piece, nil
		}
		p, err := f.phase, f.err
		f.mu.Unlock()
		switch p {
		case phaseDone:
			return nil, io.EOF
		case phaseFailed:
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if !r.pause(maxPause) {
			return nil, os.ErrDeadlineExceeded
		}
	}
}

// piece is what there is from a position on, in one chunk.
func (f *Flight) piece(at int64) []byte {
	at -= f.base
	for _, c := range f.chunks {
		if at < int64(len(c)) {
			return c[at:len(c):len(c)]
		}
		at -= int64(len(c))
	}
	panic("BUG: a reader is where no chunk is")
}

// Trailer is the trailer section; valid after io.EOF.
func (r *Reader) Trailer() []byte { return r.f.trailer }

// Leave ends a Wait early: whoever waits has left. Safe from any goroutine.
func (r *Reader) Leave() {
	r.left.Store(true)
	r.signal()
}

// Release is Close, for owners of streams.
func (r *Reader) Release() { r.Close() }

// Close gives up the part in the flight. It may be called more than once.
func (r *Reader) Close() {
	if r == nil || r.closed {
		return
	}
	r.closed = true
	f := r.f
	f.mu.Lock()
	if i := slices.Index(f.readers, r); i >= 0 {
		f.readers = slices.Delete(f.readers, i, i+1)
	}
	if f.orphan != nil && f.phase == phaseAsking && len(f.readers) == 0 {
		f.orphan()
		f.orphan = nil
	}
	f.mu.Unlock()
	select {
	case f.space <- struct{}{}:
	default:
	}
}
