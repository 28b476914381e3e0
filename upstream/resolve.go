package upstream

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gateway/internal/clock"
)

// Resolver looks host names up; net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// ServiceResolver is a Resolver that looks SRV records up too; net.Resolver is
// one. With empty service and proto, name is the complete name.
type ServiceResolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
}

var defaultResolver Resolver = net.DefaultResolver

const (
	lookupTimeout = 5 * time.Second
	unknownRetry  = time.Second // a name without addresses is looked up this often
	maxAddresses  = 1024        // of a name; further ones are ignored
	maxRecords    = 256         // SRV records of a name; further ones are ignored
)

// lookup tells names apart.
type lookup struct {
	host    string
	service bool          // it has SRV records
	every   time.Duration // 0: until it is known once
}

// place is where a name says that a server is.
type place struct {
	addr   netip.Addr
	port   uint16 // 0: the one that is configured
	weight int    // 0: the one that is configured
	backup bool
}

// String is the place in logs.
func (p place) String() string {
	if p.port == 0 {
		return p.addr.String()
	}
	return netip.AddrPortFrom(p.addr, p.port).String()
}

func comparePlaces(a, b place) int {
	return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.port, b.port))
}

// name is a host name whose addresses are followed. It belongs to the
// registry, which keeps the last good answer.
type name struct {
	lookup
	answered chan struct{} // closed after the first lookup
	stop     func()

	// Guarded by Registry.mu.

	places []place // sorted; replaced, never changed
	err    error   // of the last lookup
	pools  map[*Pool]struct{}
}

// await waits until the name was looked up once, or ctx is done.
func (n *name) await(ctx context.Context) {
	select {
	case <-n.answered:
	case <-ctx.Done():
	}
}

// subscribe makes p follow a name. The caller holds r.mu.
func (r *Registry) subscribe(p *Pool, l lookup) *name {
	n := r.names[l]
	if n == nil {
		n = &name{lookup: l, answered: make(chan struct{}), pools: make(map[*Pool]struct{})}
		r.names[l] = n
		ctx, cancel := context.WithCancel(r.ctx)
		n.stop = cancel
		r.running.Go(func() { r.follow(ctx, n) })
	}
	n.pools[p] = struct{}{}
	return n
}

// unsubscribe undoes subscribe. The caller holds r.mu.
func (r *Registry) unsubscribe(p *Pool, n *name) {
	delete(n.pools, p)
	if len(n.pools) == 0 && r.names[n.lookup] == n {
		n.stop()
		delete(r.names, n.lookup)
	}
}

// follow looks a name up again and again until ctx is done.
func (r *Registry) follow(ctx context.Context, n *name) {
	for first := true; ; first = false {
		places, err := r.locate(ctx, n.lookup)
		alive := ctx.Err() == nil
		known := alive && r.learn(n, places, err)
		if first {
			close(n.answered)
		}
		if !alive {
			return
		}
		pause := n.every
		if !known && (pause == 0 || pause > unknownRetry) {
			pause = unknownRetry
		}
		if pause == 0 || !clock.Sleep(ctx, vary(pause, 0.1)) {
			return
		}
	}
}

// locate asks for all places that a name stands for.
func (r *Registry) locate(ctx context.Context, l lookup) (places []place, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	if l.service {
		return r.services(ctx, l.host)
	}
	addrs, err := r.lookup(ctx, l.host)
	for _, a := range addrs {
		places = append(places, place{addr: a})
	}
	return places, err
}

// services asks for the SRV records of a name (RFC 2782), and for the
// addresses of the hosts that they name. A host that is not found is left out;
// the answer is an error only when none is.
func (r *Registry) services(ctx context.Context, name string) ([]place, error) {
	resolver, ok := r.resolver.(ServiceResolver)
	if !ok {
		return nil, errors.New("lookup " + name + ": no way to look SRV records up")
	}
	_, records, err := resolver.LookupSRV(ctx, "", "", name)
	if err != nil {
		return nil, err
	}
	if len(records) > maxRecords {
		r.log.Warn("name has too many SRV records", "name", name, "records", len(records), "used", maxRecords)
		records = records[:maxRecords]
	}
	best := uint16(math.MaxUint16)
	hosts := make(map[string][]netip.Addr, len(records))
	for _, s := range records {
		if _, asked := hosts[s.Target]; asked || s.Target == "." { // "." says that there is no such service
			continue
		}
		addrs, problem := r.lookup(ctx, s.Target)
		if problem != nil {
			err = problem
		}
		hosts[s.Target] = addrs
	}
	for _, s := range records {
		if hosts[s.Target] != nil {
			best = min(best, s.Priority)
		}
	}
	var places []place
	for _, s := range records {
		for _, a := range hosts[s.Target] {
			places = append(places, place{a, s.Port, max(int(s.Weight), 1), s.Priority != best})
		}
	}
	if len(places) == 0 {
		if err == nil {
			err = errors.New("lookup " + name + ": no servers")
		}
		return nil, err
	}
	slices.SortStableFunc(places, comparePlaces)
	places = slices.CompactFunc(places, func(a, b place) bool { return comparePlaces(a, b) == 0 })
	return places[:min(len(places), maxAddresses)], nil
}

// lookup asks for all addresses of a host.
func (r *Registry) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := r.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, errors.New("lookup " + host + ": no addresses")
	}
	addrs = slices.Clone(addrs)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	if strings.TrimSuffix(host, ".") == "localhost" && addrs[0].Is4() {
		// Most servers listen on one of the two loopback addresses only;
		// every other attempt would go to the wrong one. IPv4 sorts first.
		addrs = slices.DeleteFunc(addrs, netip.Addr.Is6)
	}
	if len(addrs) > maxAddresses {
		r.log.Warn("name has too many addresses", "name", host, "addresses", len(addrs), "used", maxAddresses)
		addrs = addrs[:maxAddresses]
	}
	return addrs, nil
}

// learn takes the answer of a lookup and reports whether addresses are known.
func (r *Registry) learn(n *name, places []place, err error) (known bool) {
	r.mu.Lock()
	failedBefore := n.err != nil
	n.err = err
	old := n.places
	changed := err == nil && !slices.Equal(old, places)
	if changed {
		n.places = places
	}
	known = len(n.places) > 0
	var pools []*Pool
	for p := range n.pools {
		pools = append(pools, p)
	}
	r.mu.Unlock()

	switch {
	case err != nil && !failedBefore:
		r.log.Warn("name can't be looked up", "name", n.host, "error", err, "addresses_kept", len(old))
	case err == nil && failedBefore:
		r.log.Info("name can be looked up again", "name", n.host, "addresses", places)
	case changed && old != nil:
		r.log.Info("addresses of name changed", "name", n.host, "before", old, "after", places)
	}
	if changed {
		for _, p := range pools {
			p.resolve()
		}
	}
	return known
}

// vary lengthens or shortens a time at random, by a share of at most so much.
func vary(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 + share*(2*rand.Float64()-1)))
}
