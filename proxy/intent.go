package proxy

import (
	"gateway/exchange"
	"gateway/upstream"
)

// intents is what a pool's choice of a server goes by, besides the servers
// themselves. It is resolved when the snapshot is built.
type intents struct {
	hashed bool
	key    upstream.HashKey
	cookie string // of sticky sessions, "" without them
	low    bool   // the route's requests are refused first
}

func newIntents(o *upstream.Options, priority string) intents {
	return intents{hashed: o.Balance == "hash", key: o.HashKey, cookie: o.Sticky.Cookie, low: priority == "low"}
}

// of looks at a request as the client sent it, before its head is composed for
// the origin. What it returns borrows from the request. Allocates nothing,
// unless the value of a parameter is very long.
func (i *intents) of(x *exchange.Exchange) (in upstream.Intent) {
	in.Low = i.low
	if i.hashed {
		in.Key = i.hash(x)
	}
	if i.cookie != "" {
		in.Token = x.Cookie(i.cookie)
	}
	return in
}

// hash is the request's key, 0 when it does not have what the key is made of.
func (i *intents) hash(x *exchange.Exchange) uint64 {
	var value []byte
	switch i.key.Source {
	case upstream.KeyIP:
		if x.Addr.IsValid() {
			address := x.Addr.As16() // an IPv4 address is mapped: no other address has its bytes
			return upstream.KeyHash(address[:])
		}
	case upstream.KeyPath:
		value = x.Path
	case upstream.KeyHeader:
		value = x.Request.Header.Find(i.key.Name)
	case upstream.KeyCookie:
		value = x.Cookie(i.key.Name)
	case upstream.KeyQuery:
		var buffer [256]byte
		if value = x.Parameter(buffer[:0], i.key.Name); len(value) > 0 {
			return upstream.KeyHash(value)
		}
	}
	if len(value) == 0 {
		return 0
	}
	return upstream.KeyHash(value)
}
