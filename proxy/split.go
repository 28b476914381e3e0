package proxy

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"gateway/config"
	"gateway/exchange"
	"gateway/internal/unit"
	"gateway/upstream"
)

// share is a target of some of a route's clients.
type share struct {
	*target
	below uint64 // of the clients whose hash is less, and not less than that of the share before
}

func (g *Gateway) newSplit(s *Snapshot, r *route, o *config.Route) (list []share) {
	sum := unit.Percent(0)
	for _, name := range slices.Sorted(maps.Keys(o.Split)) {
		sum += o.Split[name]
		t := g.newTarget(s, r, o, name)
		t.cache = g.newCache(s, o, name)
		list = append(list, share{t, threshold(sum)})
	}
	return list
}

// threshold is a share of all numbers.
func threshold(p unit.Percent) uint64 {
	if p >= 100 {
		return math.MaxUint64
	}
	return uint64(p.Fraction() * (1 << 64))
}

// choose is the target that a client's requests go to. It goes by the address,
// so that a client does not see two versions of a site at the same time; on
// Unix sockets, where clients have none, it is drawn.
func (r *route) choose(x *exchange.Exchange) *target {
	if r.split == nil {
		return r.target
	}
	at := rand.Uint64()
	if x.Addr.IsValid() {
		address := x.Addr.As16()
		at = upstream.KeyHash(address[:])
	}
	for i := range r.split {
		if at < r.split[i].below || r.split[i].below == math.MaxUint64 {
			return r.split[i].target
		}
	}
	return r.target
}

// uses reports whether requests of clients go to a pool.
func (r *route) uses(p *upstream.Pool) bool {
	return r.target != nil && r.target.pool == p ||
		slices.ContainsFunc(r.split, func(s share) bool { return s.pool == p })
}
