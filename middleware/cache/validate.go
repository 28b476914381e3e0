package cache

import (
	"slices"

	"gateway/wire"
)

// NotModified ends the flight of a request that validated old with a 304: the
// stored response is updated, and what is to be answered is returned, for the
// caller to release. False when the 304 is about something else: the caller asks
// again without conditions, in the same flight.
func (f *Flight) NotModified(old *Entry, o *Origin) (Entry, NoStoreReason, bool) {
	if !old.Validated(o.Header) {
		return Entry{}, Outdated, false
	}
	e, reason := f.update(old, o)
	return e, reason, true
}

// Head ends the flight of a HEAD that was forwarded because old is stale: old is
// updated if the answer describes it, and removed if not (RFC 9111 section
// 4.3.5). declared is the answer's Content-Length, -1 without one. Answers other
// than 200 say nothing about it.
func (f *Flight) Head(old *Entry, o *Origin, declared int64) {
	switch {
	case o.Status != 200:
		f.leave(phaseAgain, nil)
	case old.SameAsHead(o.Header, declared):
		e, _ := f.update(old, o)
		e.Release()
	default:
		f.c.store.removeKey(f.c.store.hash(old.key()), old.key(), EvictedReplaced)
		f.leave(phaseAgain, nil)
	}
}

// update stores old with the fields of a newer answer, and ends the flight.
func (f *Flight) update(old *Entry, o *Origin) (Entry, NoStoreReason) {
	var h wire.Header
	old.merge(&h, o.Header)
	merged := Origin{Status: old.Status(), Header: &h, Requested: o.Requested, Received: o.Received}
	first, total, partial := old.Partial()
	if partial {
		h.Set("Content-Range", AppendContentRange(nil, Span{first, first + old.BodyLen() - 1}, total))
	}
	terms, reason := f.policy.Judge(&f.asked, &merged)
	f.terms = terms
	head, failed := f.draft(nil, &merged, &terms, old.id()) // the body stays, and so its codings
	if failed != Storable {                                 // more tags than before
		head, reason = Entry{blob: slices.Clone(old.blob[:len(old.blob)-len(old.Body())])}, failed
	}
	head.take(old.Took()) // for its body
	body := old.Body()
	if !partial {
		head.sized(int64(len(body)))
	}
	switch {
	case reason.personal():
		// This request may not store anything; what is there stays as it is.
	case reason != Storable:
		f.c.store.removeKey(f.c.store.hash(old.key()), old.key(), EvictedReplaced)
	case f.doomed.Load():
		reason = Outdated
	case !f.c.keep(&head, f.hash, [][]byte{body}, &terms, o.Received):
		reason = NoMemory
	case f.doomed.Load():
		f.c.store.removeKey(f.hash, head.primary(), EvictedPurged)
		reason = Outdated
	default:
		f.spread(&head)
	}
	f.mu.Lock()
	f.storing, f.reason = false, reason
	f.mu.Unlock()
	if reason == Storable && sharable(&terms) {
		f.remember(0)
		f.leave(phaseAgain, nil)
	} else {
		if reason != Outdated && !reason.personal() {
			f.remember(o.Received + f.c.uncacheable.Load())
		}
		f.leave(phaseAlone, nil)
	}
	if reason == Storable {
		if e, found := f.c.store.lookup(f.c.store.hash(head.key()), head.key(), o.Received, false); found {
			return e, reason
		}
	}
	head.blob = append(head.blob, body...)
	return head, reason
}
