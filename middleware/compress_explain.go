package middleware

import (
	"gateway/exchange"
	"gateway/middleware/compress"
	"gateway/wire"
)

// Coding is what Compress would do with a response.
type Coding struct {
	// Coding is what the client gets: zstd, br, gzip, dcz, or "" for the body
	// as it is.
	Coding string `json:"coding"`
	// Why is the reason for a body as it is, as metrics name it: not_accepted,
	// type, small, coded, no_transform, range, cross_site; "" for others.
	Why string `json:"why,omitempty"`
	// Certain says that the response is known. Otherwise it still has to be of
	// one of the types, of the size, and not coded already.
	Certain bool  `json:"certain"`
	MinSize int64 `json:"min_size,omitempty"` // bytes, when it is not certain
}

// Explain is what After would do with the response that the exchange has, or
// with one that is not known yet when it has none. Nothing is coded or counted.
// Whether the coded body is smaller, and whether there is room for one more
// stream, only After finds out.
func (s *Compress) Explain(x *exchange.Exchange, a Asked) *Coding {
	if s == nil {
		return nil
	}
	c := &Coding{MinSize: s.minSize}
	skip := func(why compress.Skip) *Coding {
		c.Coding, c.Why = "", why.String()
		return c
	}
	if res := &x.Response; res.Header != nil {
		c.Certain, c.MinSize = true, 0
		if res.Status < 200 || res.Status == 204 || res.Status == 205 || res.Status == 304 {
			return c // there is no body
		}
		if coding, known := compress.Applied(res.Header); !known || coding != compress.Identity {
			return skip(compress.AlreadyCoded)
		}
		if why, unfit := s.unfit(x); unfit {
			return skip(why)
		}
		if res.Status == 206 || res.Header.Has(wire.ContentRange) {
			return skip(compress.PartOfBody)
		}
	}
	coding := s.choose(&a)
	if coding == compress.Identity {
		return skip(compress.NotAccepted)
	}
	h := &x.Request.Header
	switch {
	case h.Has(wire.Range):
		return skip(compress.PartOfBody)
	case fieldHas(h, wire.CacheControl, "no-transform"):
		return skip(compress.NoTransform)
	case !s.crossSite && fromOtherSite(x):
		return skip(compress.FromOtherSite)
	}
	c.Coding = coding.String()
	return c
}
