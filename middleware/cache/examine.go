package cache

import "gateway/wire"

// Examine is Lookup for people who ask what it would say: nothing is counted,
// nothing becomes more popular, and what has outlived its time is left to
// others. The Redis tier is not asked.
func (c *Cache) Examine(l *Lookup, p *Policy, q *wire.Request, u *URL, digest *[DigestSize]byte, now int64) Verdict {
	l.Release()
	l.quiet = true
	return c.look(l, p, q, u, digest, now)
}

// entry asks the store for a key as the lookup wants it.
func (c *Cache) entry(l *Lookup, hash uint64, key []byte, now int64) (Entry, bool) {
	if l.quiet {
		return c.store.peek(hash, key, now)
	}
	return c.store.lookup(hash, key, now, true)
}

// peek is lookup without a trace: what it would remove is not found.
func (s *store) peek(hash uint64, key []byte, now int64) (e Entry, found bool) {
	d := s.shard(hash)
	l := d.lanes.enter()
	defer l.leave()
	at, _ := d.find(hash, key)
	if at == 0 {
		return Entry{}, false
	}
	e = d.entry(at)
	switch worst, _ := s.verdict(d, at, e, now); worst {
	case remove:
		return Entry{}, false
	case soften:
		e.soft = true
	}
	d.pin(&e, at)
	return e, true
}

// KeyText is the key of a lookup in parts that people can read.
type KeyText struct {
	Method    string `json:"method"` // GET, also for HEAD; or QUERY, whose body is part of the key
	URL       string `json:"url"`    // what of the URL counts
	Namespace string `json:"namespace"`
	Variant   bool   `json:"variant,omitempty"` // what is stored is one of several that Vary tells apart
}

// Key is the key that was looked for; false when the request passed by.
func (l *Lookup) Key() (t KeyText, ok bool) {
	k, ok := splitKey(l.key)
	if !ok || l.Verdict == Bypass {
		return t, false
	}
	t.Method = "GET"
	rest := len(k.rest)
	if k.class == classQuery {
		t.Method = "QUERY"
		rest -= DigestSize
	}
	t.URL = "http://"
	if k.scheme == 's' {
		t.URL = "https://"
	}
	t.URL += string(k.host) + string(k.path)
	if k.query != nil {
		t.URL += "?" + string(k.query)
	}
	t.Namespace, t.Variant = string(k.namespace), rest > 0 && l.Entry.Valid()
	return t, true
}
