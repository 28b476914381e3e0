package middleware

import (
	"io"
	"sync"
	"time"

	"gateway/exchange"
	"gateway/middleware/cache"
	"gateway/middleware/compress"
)

// Stored is a stored response, whose coded forms are stored with it.
type Stored struct {
	Cache  *cache.Cache // nil for none
	Lookup *cache.Lookup
	Entry  *cache.Entry // valid until the exchange ends
}

// codingPatience bounds the wait for somebody who codes the same body; that is
// milliseconds of work, more only where the processors are starved.
const codingPatience = 3 * time.Second

// stored answers with a coded form that is stored, or makes it if nobody else
// does. Forms of bodies that are too large to be coded in one go are made in
// the background, and until they are there, bodies are sent as they are: a body
// is never coded twice as long as the cache can keep what became of it. over is
// false where nothing of it is for the cache. A form that is there costs no
// allocation.
func (s *Compress) stored(x *exchange.Exchange, c compress.Coding, a *Asked) (applied compress.Coding, over bool) {
	res, st := &x.Response, &a.Stored
	given, collected := res.Stream.(*compress.Buffer)
	if res.Stream != nil && !collected {
		return c, false // it is still being received
	}
	if n := st.Entry.BodyLen(); n >= 0 && n != int64(len(res.Body)) {
		return c, false // not what is stored
	}
	large := len(res.Body) > compress.MaxWhole
	if large && c == compress.Dcz {
		if c = a.accept.Choose(s.offers); c == compress.Identity {
			s.engine.Skipped(compress.NotAccepted)
			return c, true
		}
	}
	name := c.String()
	if c == compress.Dcz {
		name = a.dictionary.Name()
	}
	now := time.Now().UnixNano()
	applied, found := s.find(x, c, name, st, now)
	if found {
		return applied, true
	}
	if large {
		st.Cache.CodeLater(st.Entry, name, s.coders[c])
		s.engine.Skipped(compress.BeingCoded)
		return compress.Identity, true
	}
	done, mine := st.Cache.BeginCoding(st.Entry, name)
	if !mine {
		if done != nil {
			select {
			case <-done:
			case <-time.After(codingPatience):
			}
			if applied, found = s.find(x, c, name, st, now); found {
				return applied, true
			}
		}
		s.engine.Skipped(compress.BeingCoded)
		return compress.Identity, true
	}
	defer st.Cache.EndCoding(st.Entry, name)
	if applied, found = s.find(x, c, name, st, now); found { // somebody has ended just before
		return applied, true
	}
	b := s.whole(c, a, res)
	if b == nil {
		st.Cache.KeepCoded(st.Lookup, st.Entry, name, nil, now)
		s.engine.Skipped(compress.NotSmaller)
		return compress.Identity, true
	}
	st.Cache.KeepCoded(st.Lookup, st.Entry, name, b.Bytes(), now)
	if collected {
		given.Release()
	}
	res.Body, res.Length, res.Stream = b.Bytes(), int64(len(b.Bytes())), b
	return c, true
}

// find answers with a coded form if one is stored.
func (s *Compress) find(x *exchange.Exchange, c compress.Coding, name string, st *Stored, now int64) (applied compress.Coding, found bool) {
	e, found := st.Cache.Coded(st.Lookup, st.Entry, name, now)
	if !found {
		return c, false
	}
	body := e.Body()
	if len(body) == 0 {
		e.Release()
		s.engine.Skipped(compress.NotSmaller)
		return compress.Identity, true
	}
	release(x.Response.Stream)
	f := storedForms.Get().(*storedForm)
	f.entry = e
	x.Response.Body, x.Response.Length, x.Response.Stream = body, int64(len(body)), f
	s.engine.Reused(c)
	return c, true
}

// storedForm holds the coded form that a response is made of.
type storedForm struct{ entry cache.Entry }

var storedForms = sync.Pool{New: func() any { return new(storedForm) }}

// Next is io.EOF: nothing follows the body.
func (*storedForm) Next() ([]byte, error) { return nil, io.EOF }

// Trailer is nil.
func (*storedForm) Trailer() []byte { return nil }

// Release gives the entry back.
func (f *storedForm) Release() {
	f.entry.Release()
	storedForms.Put(f)
}
