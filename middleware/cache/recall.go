package cache

import (
	"context"

	"gateway/wire"
)

// TierResult is what came of asking the Redis tier.
type TierResult uint8

const (
	TierHit     TierResult = iota // it had what was asked for
	TierMiss                      // it had nothing, or nothing newer
	TierInvalid                   // what it had was purged, damaged or foreign
	TierFailed                    // it did not answer in time
	TierSkipped                   // it was not asked: it is away, or purges do not arrive
	tierResults
)

// String is the result's name in metrics.
func (r TierResult) String() string {
	return [tierResults]string{"hit", "miss", "invalid", "failed", "skipped"}[r]
}

// Recall asks the Redis tier, if there is one, before the flight asks the
// origin; it is for the one who drives it, and takes redis_timeout at most. What
// it finds goes into memory, and l becomes what a lookup would find now. True
// when that is something to serve, as l.Verdict says: the flight has ended then,
// and those who wait look again. After false the flight goes on, perhaps with
// something else to validate. A refresh ends with what is fresh only.
func (f *Flight) Recall(l *Lookup, q *wire.Request, now int64) bool {
	t := f.tier
	if t == nil || !f.recall {
		return false
	}
	result := TierSkipped
	if t.Ready() {
		ctx, cancel := context.WithTimeout(t.ctx, t.timeout)
		result = t.recall(ctx, f, l, q, now)
		cancel()
	}
	f.c.counts.tier[result].Add(1)
	if result != TierHit {
		return false
	}
	refresh := l.Verdict == HitRefresh
	l.Entry.Release()
	l.Recalled = true
	switch f.c.decide(l, q, now) {
	case Hit:
	case HitStale, HitRefresh:
		if refresh {
			return false
		}
	default:
		return false
	}
	f.remember(0)
	f.leave(phaseAgain, nil)
	return true
}

// recall brings what Redis has into memory.
func (t *Tier) recall(ctx context.Context, f *Flight, l *Lookup, q *wire.Request, now int64) TierResult {
	primary := l.key[:l.primary]
	e, generation, result := t.fetch(ctx, t.name(primary, nil), primary, nil)
	if result != TierHit {
		return result
	}
	if e.flags()&flagVary != 0 {
		lists := e.Body()
		for result = TierMiss; len(lists) > 1 && result == TierMiss; {
			n := int(lists[0])<<8 | int(lists[1])
			vary := lists[2 : 2+n]
			lists = lists[2+n:]
			l.scratch = appendVariant(l.scratch[:0], vary, &q.Header)
			e, generation, result = t.fetch(ctx, t.name(primary, l.scratch), primary, l.scratch)
		}
		if result != TierHit {
			return result
		}
	}
	return f.admit(&e, generation, l, now)
}

// fetch gets an entry and makes sure that it is the one that was asked for.
func (t *Tier) fetch(ctx context.Context, name string, primary, variant []byte) (e Entry, generation uint64, result TierResult) {
	b, result := t.get(ctx, name)
	if result != TierHit {
		return e, 0, result
	}
	e, generation, ok := t.decoder.decode(b)
	if !ok || string(e.primary()) != string(primary) {
		return e, 0, TierInvalid
	}
	if variant == nil {
		ok = len(e.key()) == len(primary) && len(e.vary()) == 0
	} else {
		at := len(primary)
		ok = e.flags()&flagVary == 0 && len(e.vary()) > 0 && len(e.key()) >= at+generationSize && e.key()[at] == 'V' &&
			string(variantOf(&e)) == string(variant)
	}
	if _, _, partial := e.Partial(); !ok || partial {
		return e, 0, TierInvalid
	}
	return e, generation, TierHit
}

// maxSkew is by how much another gateway's clock may be ahead.
const maxSkew = 60 * second

// admit stores an entry that came from Redis.
func (f *Flight) admit(e *Entry, generation uint64, l *Lookup, now int64) TierResult {
	c := f.c
	terms := e.Terms()
	fate := f.tier.purged.fate(*e, generation)
	if fate == remove || terms.Received > now+maxSkew {
		return TierInvalid
	}
	if terms.Dead() <= now || l.Entry.Valid() && terms.Received <= l.Terms.Received || e.BodyLen() > f.limit() {
		return TierMiss
	}
	le.PutUint64(e.blob[atSequence:], f.sequence)
	le.PutUint64(e.blob[atGeneration:], generation)
	le.PutUint64(e.blob[atID:], c.ids.Add(1))
	if len(e.vary()) > 0 {
		le.PutUint64(e.blob[e.u32(atPrimaryLen)+metaSize+1:], c.generation(f.hash, e.primary(), now))
	}
	if f.doomed.Load() {
		return TierInvalid
	}
	body := e.Body()
	head := Entry{blob: e.blob[:len(e.blob)-len(body)]}
	if !c.keep(&head, f.hash, [][]byte{body}, &terms, now) {
		return TierMiss
	}
	if fate == soften {
		c.store.soften(c.store.hash(e.key()), e.key())
	}
	if f.doomed.Load() { // meanwhile
		c.store.removeKey(f.hash, e.primary(), EvictedPurged)
		return TierInvalid
	}
	return TierHit
}
