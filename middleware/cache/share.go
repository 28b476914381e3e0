package cache

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"gateway/internal/ascii"
)

const (
	heartbeat    = time.Second           // between two looks whether purges were missed
	brokenPause  = 50 * time.Millisecond // between two looks whether Redis is back
	longestPause = time.Second
	publishBatch = 64
)

// share has the tier, if there is one, tell the other gateways of a purge. It
// does not wait.
func (c *Cache) share(p purge) {
	if t := c.tier.Load(); t != nil {
		t.purged.want(p)
		ring(t.wake)
	}
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// publishAll publishes purges as long as it takes.
func (t *Tier) publishAll() {
	pause := brokenPause
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-t.wake:
		}
		for batch := t.purged.take(publishBatch); len(batch) > 0; batch = t.purged.take(publishBatch) {
			n, err := t.publish(batch)
			if err == nil {
				if t.purged.published(batch, n) {
					t.c.known.Store(n)
				}
				t.c.counts.purges[purgeSent].Add(uint64(len(batch)))
				pause = brokenPause
				continue
			}
			t.purged.failed(batch)
			if !t.sleep(pause, t.back) {
				return
			}
			pause = min(2*pause, longestPause)
		}
	}
}

// sleep waits, until cut at most; false when the tier ends.
func (t *Tier) sleep(d time.Duration, cut <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-t.ctx.Done():
		return false
	case <-timer.C:
	case <-cut:
	}
	return true
}

// publish gives purges numbers, records them and tells all who listen. It
// returns the number of the last.
func (t *Tier) publish(batch []purge) (uint64, error) {
	ctx, cancel := context.WithTimeout(t.ctx, tierPatience)
	defer cancel()
	args := make([]any, 0, 3+2*len(batch))
	args = append(args, t.purged.last.Load(), t.channel(), t.most)
	for _, p := range batch {
		field := appendField(nil, p.target, p.soft)
		args = append(args, field, t.node+" "+string(field)+p.url)
	}
	text, err := publishScript.Run(ctx, t.client, t.keys(), args...).Text()
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, 10, 64)
}

// The tag keeps the keys on one server of a Cluster.
func (t *Tier) keys() []string {
	p := t.prefix + "{cache}:"
	return []string{p + "state", p + "purges", p + "former"}
}

func (t *Tier) channel() string { return t.prefix + "{cache}:purged" }

// fieldSize is the length of what names a purge in Redis: its kind, in upper
// case for a soft one, the length of a prefix, and the hash.
const fieldSize = 1 + 2 + 8

func appendField(dst []byte, t target, soft bool) []byte {
	kind := t.kind
	if soft {
		kind -= 'a' - 'A'
	}
	return le.AppendUint64(le.AppendUint16(append(dst, kind), t.length), t.hash)
}

func parseField(s string) (t target, soft, ok bool) {
	if len(s) != fieldSize {
		return t, false, false
	}
	t.kind = ascii.Lower[s[0]]
	soft = t.kind != s[0]
	t.length = le.Uint16(view(s[1:]))
	t.hash = le.Uint64(view(s[3:]))
	switch t.kind {
	case kindAll, kindTag, kindURL, kindHost, kindPrefix:
		return t, soft, true
	}
	return t, false, false
}

// subscribe listens to purges until the tier ends. While it does not, the cache
// does not trust what is old.
func (t *Tier) subscribe() {
	pause := brokenPause
	for {
		if t.listen() && t.ctx.Err() == nil {
			pause = brokenPause
			t.log.Warn("purges of other gateways do not arrive; what is older than purge_lag counts as stale")
		}
		if t.ctx.Err() != nil || !t.sleep(pause, nil) {
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// listen subscribes, learns what was missed, and follows purges until that is
// no longer sure. It reports whether it had come to follow them.
func (t *Tier) listen() (followed bool) {
	s := t.client.Subscribe(t.ctx) // nothing yet
	stop := context.AfterFunc(t.ctx, func() { _ = s.Close() })
	defer func() {
		stop()
		_ = s.Close()
		t.c.lag.Store(int64(t.lag))
		t.connected.Store(false)
	}()
	ctx, cancel := context.WithTimeout(t.ctx, tierPatience)
	err := s.Subscribe(ctx, t.channel())
	if err == nil {
		_, err = s.ReceiveTimeout(ctx, tierPatience)
	}
	cancel()
	if err != nil || !t.sync() {
		return false
	}
	t.breaker.Report(true)
	t.connected.Store(true)
	t.c.lag.Store(0)
	ring(t.back)
	waiting := false // for a pong
	for next := time.Now().Add(heartbeat); ; {
		if time.Now().After(next) {
			if waiting || s.Ping(t.ctx) != nil || !t.sync() {
				return true
			}
			waiting = true
			next = time.Now().Add(heartbeat)
		}
		message, err := s.ReceiveTimeout(t.ctx, max(time.Until(next), time.Millisecond))
		var network net.Error
		switch {
		case err == nil:
		case t.ctx.Err() == nil && errors.As(err, &network) && network.Timeout():
			continue
		default:
			return true
		}
		switch m := message.(type) {
		case *redis.Pong:
			waiting = false
			t.breaker.Report(true)
		case *redis.Message:
			if !t.hear(m.Payload) && !t.sync() {
				return true
			}
		}
	}
}

// hear follows a message: the number of a purge, who purged, and what. False
// when there were others before that did not arrive.
func (t *Tier) hear(payload string) bool {
	number, rest, _ := strings.Cut(payload, " ")
	node, what, ok := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || !ok || len(what) < fieldSize {
		return true // not ours
	}
	target, soft, ok := parseField(what[:fieldSize])
	last := t.purged.last.Load()
	if !ok || n <= last {
		return true
	}
	if n != last+1 {
		return false
	}
	if t.purged.add(target, n, soft) > 2*maxRecords {
		t.synced = false // Redis has forgotten some of them
	}
	if node != t.node { // else it was purged here before it was published
		t.apply(target, soft, what[fieldSize:])
		t.c.counts.purges[purgeReceived].Add(1)
	}
	t.reached(n)
	return t.synced
}

// reached notes that all purges up to n have been applied.
func (t *Tier) reached(n uint64) {
	t.purged.last.Store(n)
	t.c.known.Store(n)
}

// apply purges here what another gateway has purged. url is the key without
// class, if it is known.
func (t *Tier) apply(p target, soft bool, url string) {
	if key := append([]byte{classGet}, url...); p.kind == kindURL && url != "" {
		if k, ok := splitKey(key); ok && len(k.rest) == 0 {
			t.c.purgeKey(key, soft, nil)
			return
		}
	}
	t.c.purge(p, soft)
}

// sync learns what Redis knows of purges, applies what was missed, and reports
// whether all is known now.
func (t *Tier) sync() bool {
	ctx, cancel := context.WithTimeout(t.ctx, tierPatience)
	defer cancel()
	last := t.purged.last.Load()
	full := 0
	if !t.synced {
		full = 1
	}
	reply, err := syncScript.Run(ctx, t.client, t.keys(), last, full).Slice()
	if err != nil || len(reply) < 3 {
		return false
	}
	var numbers [3]uint64
	for i := range numbers {
		text, _ := reply[i].(string)
		if numbers[i], err = strconv.ParseUint(text, 10, 64); err != nil {
			return false
		}
	}
	n, begun, floor := numbers[0], numbers[1], numbers[2]
	if n == last && t.synced {
		return true
	}
	var all []purged
	for _, part := range reply[3:] {
		pairs, _ := part.([]any)
		for i := 0; i+1 < len(pairs); i += 2 {
			field, _ := pairs[i].(string)
			text, _ := pairs[i+1].(string)
			generation, err := strconv.ParseUint(text, 10, 64)
			if target, soft, ok := parseField(field); ok && err == nil {
				all = append(all, purged{target, soft, generation})
			}
		}
	}
	t.purged.replace(all, floor)
	missed := 0
	switch {
	case last == 0 && t.c.Stats().Entries == 0:
		all = nil // nothing is here that may have been purged
	case last < begun:
		// Redis does not remember what it was told before, or this gateway
		// has never asked.
		t.c.purge(target{kind: kindAll}, true)
	case last < floor:
		t.c.purge(target{kind: kindAll}, false)
		missed++
	}
	for _, p := range all {
		if p.generation > last {
			t.c.purge(p.target, p.soft)
			missed++
		}
	}
	t.c.counts.purges[purgeMissed].Add(uint64(missed))
	t.reached(n)
	t.synced = true
	return true
}
