package middleware

import (
	"fmt"
	"mime"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/middleware/ratelimit"
	"gateway/wire"
)

// Limit refuses requests of clients that send too many. Nil refuses none.
//
// Its policies all have to agree, and what one of them refuses takes nothing
// from the others. Policies are asked in two places, so that floods end before
// credentials are looked at, and yet a key can be a user; a third place is for
// those that count only what the cache does not answer.
type Limit struct {
	address  []*limitPolicy
	identity []*limitPolicy
	miss     []*limitPolicy
	claim    Claim
	route    []byte
	announce bool   // a policy wants its fields on all responses
	policies []byte // RateLimit-Policy, empty without a policy that sends it
}

// Claim is the claim of that name of the token with which the client proved who
// it is, nil without one. It is borrowed until the exchange ends.
type Claim func(x *exchange.Exchange, name string) []byte

// limitPolicy is a policy as a route uses it.
type limitPolicy struct {
	*ratelimit.Limiter
	exempt   addresses
	page     []byte      // of refusals; nil for one that names the policy
	pageType string      // of the page
	fields   wire.Header // that all refusals have
}

// NewLimit builds the stage of a route, nil without policies. claim may be nil:
// then there are no claims. An error is that of a page which cannot be read.
func NewLimit(route string, limiters []*ratelimit.Limiter, claim Claim) (*Limit, error) {
	if len(limiters) == 0 {
		return nil, nil
	}
	if len(limiters) > ratelimit.MaxPolicies {
		panic("BUG: a route has more limits than its exchange can hold")
	}
	l := &Limit{claim: claim, route: []byte(route)}
	limiters = slices.Clone(limiters)
	slices.SortStableFunc(limiters, func(a, b *ratelimit.Limiter) int { return a.Shared() - b.Shared() })
	for _, limiter := range limiters {
		o := &limiter.Options
		p := &limitPolicy{Limiter: limiter, exempt: newAddresses(o.Exempt)}
		if o.Page != "" {
			if err := p.read(o.Page); err != nil {
				return nil, fmt.Errorf("limit.%s.page: %w", limiter.Name, err)
			}
		}
		list := &l.address
		switch {
		case o.On == "miss":
			list = &l.miss
		case slices.ContainsFunc(o.Key, func(s ratelimit.Source) bool { return s.Kind == ratelimit.ByClaim }):
			list = &l.identity
		}
		*list = append(*list, p)
		if p.Paces() || o.Headers == "none" {
			continue
		}
		l.announce = l.announce || o.Announce
		if o.Headers == "draft" {
			l.policies = limiter.AppendPolicy(separate(l.policies))
		}
	}
	for _, p := range slices.Concat(l.address, l.identity, l.miss) {
		l.prepare(p)
	}
	return l, nil
}

// prepare makes the fields that all refusals of a policy have.
func (l *Limit) prepare(p *limitPolicy) {
	if p.page != nil {
		p.fields.AddIDString(wire.ContentType, p.pageType)
	} else {
		p.fields.AddIDString(wire.ContentType, bodyTypes[p.Options.Body])
	}
	p.fields.AddIDString(wire.CacheControl, "no-store")
	if p.Options.Headers == "draft" {
		p.fields.Add("RateLimit-Policy", l.policies)
	}
}

// read loads the body of refusals.
func (p *limitPolicy) read(name string) error {
	const most = 1 << 20
	info, err := os.Stat(name)
	if err == nil && info.Size() > most {
		err = fmt.Errorf("%q has %d bytes; want at most %d", name, info.Size(), most)
	}
	if err == nil {
		p.page, err = os.ReadFile(name)
	}
	if p.pageType = mime.TypeByExtension(filepath.Ext(name)); p.pageType == "" {
		p.pageType = "text/plain; charset=utf-8"
	}
	return err
}

// ByAddress asks the policies that need nothing but the request. After false
// the answer is made, and t says who refused.
func (l *Limit) ByAddress(x *exchange.Exchange, t *ratelimit.Ticket) bool {
	return l == nil || l.ask(x, t, l.address, x.Start)
}

// ByIdentity asks the policies whose keys access control provides; see
// ByAddress.
func (l *Limit) ByIdentity(x *exchange.Exchange, t *ratelimit.Ticket) bool {
	return l == nil || l.ask(x, t, l.identity, x.Start)
}

// ByMiss asks the policies that count only what goes to the origin; see
// ByAddress.
func (l *Limit) ByMiss(x *exchange.Exchange, t *ratelimit.Ticket) bool {
	return l == nil || l.ask(x, t, l.miss, 0)
}

// ask is the decision of some policies, as of a moment, 0 for now. It allocates
// nothing, and waits only for policies with delay or a strict store.
func (l *Limit) ask(x *exchange.Exchange, t *ratelimit.Ticket, policies []*limitPolicy, now int64) bool {
	if len(policies) == 0 {
		return true
	}
	if now == 0 || t.Len() > 0 { // what was asked before may have waited
		now = clock.Mono()
	}
	var keys [ratelimit.MaxPolicies]ratelimit.Key
	var costs [ratelimit.MaxPolicies]int64
	several := len(policies)+t.Len() > 1
	for i, p := range policies {
		if p.exempt.contains(x.Addr) {
			continue // costs nothing
		}
		if costs[i] = p.cost(x); costs[i] == 0 {
			continue
		}
		keys[i] = l.key(x, p)
		if !several || p.Paces() || p.Options.DryRun {
			continue
		}
		// Look at all before taking of any: what is given back was missing for
		// others meanwhile.
		if v := p.Peek(&keys[i], costs[i], now); !v.Allowed {
			return l.refuse(x, t, p, &v, now)
		}
	}
	first := t.Len()
	waits, slowest := int64(0), (*limitPolicy)(nil)
	for i, p := range policies {
		if costs[i] == 0 {
			continue
		}
		taken := ratelimit.Taken{Limiter: p.Limiter, Key: keys[i], Cost: costs[i]}
		if p.Paces() {
			taken.Verdict.Allowed = true
			t.Add(taken)
			continue
		}
		taken.Verdict = p.Take(&keys[i], costs[i], now)
		switch v := &taken.Verdict; {
		case v.Allowed:
			if v.Wait > waits {
				waits, slowest = v.Wait, p
			}
		case !p.Options.DryRun:
			return l.refuse(x, t, p, v, now)
		}
		t.Add(taken)
	}
	if slowest != nil && !slowest.Queue() {
		return l.refuse(x, t, slowest, &ratelimit.Verdict{Wait: waits}, now)
	}
	for i := first; i < t.Len(); i++ {
		taken := t.Taken(i)
		switch {
		case taken.Limiter.Paces():
		case !taken.Verdict.Allowed:
			taken.Limiter.Count(ratelimit.DryRun, &taken.Verdict)
		case taken.Verdict.Wait > 0:
			taken.Limiter.Count(ratelimit.Delayed, &taken.Verdict)
		default:
			taken.Limiter.Count(ratelimit.Allowed, &taken.Verdict)
		}
	}
	if slowest != nil {
		pause(x, waits)
		slowest.Unqueue()
	}
	return true
}

// pause waits so many ns, or until the client leaves.
func pause(x *exchange.Exchange, ns int64) {
	const step = 250 * time.Millisecond
	for left := time.Duration(ns); left > 0 && !x.Abandoned(); left -= step {
		time.Sleep(min(left, step))
	}
}

// Pace is called when bytes of the response's body were written, and returns
// when more may be: after a wait for policies that limit bandwidth.
func (l *Limit) Pace(x *exchange.Exchange, t *ratelimit.Ticket, bytes int) {
	if l == nil || t.Len() == 0 {
		return
	}
	if wait := t.Pace(bytes, clock.Mono()); wait > 0 {
		pause(x, wait)
	}
}

// Paces reports whether a policy limits the response's bandwidth.
func (l *Limit) Paces(t *ratelimit.Ticket) bool { return l != nil && t.Paces() }

// cost is what the request takes of the policy.
func (p *limitPolicy) cost(x *exchange.Exchange) int64 {
	o := &p.Options
	cost := int64(1)
	if len(o.Cost) > 0 {
		if n, ok := o.Cost[string(x.Request.MethodText)]; ok { // no copy: the compiler sees a look-up
			cost = int64(n)
		}
	}
	if o.CostHeader != "" {
		cost = max(cost, number(x.Request.Header.Find(o.CostHeader)))
	}
	return p.Clamp(cost)
}

// number reads a decimal number, 0 for what is none.
func number(text []byte) (n int64) {
	if len(text) > 18 {
		return 0
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// key is that of the policy's first source that the request has.
func (l *Limit) key(x *exchange.Exchange, p *limitPolicy) ratelimit.Key {
	var buffer [keyBuffer]byte
	i, value := l.value(x, p, buffer[:0])
	return p.Key(i, value)
}

// keyBuffer is room for the value of a key that has to be composed.
const keyBuffer = 256

// value is the first of the policy's sources that the request has, and what it
// gives; their number and nil when the request has none of them. The value is
// in the buffer, or borrowed from the request.
func (l *Limit) value(x *exchange.Exchange, p *limitPolicy, buffer []byte) (i int, value []byte) {
	o := &p.Options
	for i := range o.Key {
		switch s := &o.Key[i]; s.Kind {
		case ratelimit.ByIP:
			if !x.Addr.IsValid() {
				continue
			}
			address := l.network(x, p).Addr().As16() // IPv4 is mapped: no other address has its bytes
			return i, append(buffer, address[:]...)
		case ratelimit.ByHeader:
			value = x.Request.Header.Find(s.Name)
		case ratelimit.ByCookie:
			value = x.Cookie(s.Name)
		case ratelimit.ByQuery:
			value = x.Parameter(buffer, s.Name)
		case ratelimit.ByClaim:
			if l.claim != nil {
				value = l.claim(x, s.Name)
			}
		case ratelimit.ByPath:
			value = x.Request.Path
		case ratelimit.ByRoute:
			value = l.route
		case ratelimit.ByNothing:
			return i, nil
		}
		if len(value) > 0 {
			return i, value
		}
	}
	return len(o.Key), nil
}

// network is the part of the client's address that counts.
func (l *Limit) network(x *exchange.Exchange, p *limitPolicy) netip.Prefix {
	bits := p.Options.IPv6Prefix
	if x.Addr.Is4() {
		bits = p.Options.IPv4Prefix
	}
	network, _ := x.Addr.Prefix(bits)
	return network
}

// quotaExceeded is the problem type of the draft, section 5.1.
const quotaExceeded = `{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too many requests","status":429,"violated-policies":["`

// refuse gives back what was taken and makes the answer; it returns false.
func (l *Limit) refuse(x *exchange.Exchange, t *ratelimit.Ticket, p *limitPolicy, v *ratelimit.Verdict, now int64) bool {
	denied := *v
	denied.Allowed = false
	t.Refund(now)
	t.Refused = p.Name
	p.Count(ratelimit.Denied, &denied)

	var buffer [20]byte
	after := strconv.AppendInt(buffer[:0], p.RetryAfter(&denied), 10)
	body := p.page
	if body == nil {
		x.Head = p.compose(x.Head[:0], after, x.ID) // no request is composed on this way
		body = x.Head
	}
	h := x.Respond(429, body)
	h.AddAll(&p.fields)
	h.AddID(wire.RetryAfter, after)
	describe(h, p.Limiter, &denied)
	return false
}

// bodyTypes are the types of Options.Body.
var bodyTypes = map[string]string{
	"problem": "application/problem+json", "json": "application/json", "text": "text/plain; charset=utf-8",
}

// compose appends the body of a refusal.
func (p *limitPolicy) compose(b, after, id []byte) []byte {
	if p.Options.Body == "text" {
		b = append(b, "Too many requests (limit "...)
		b = append(b, p.Name...)
		b = append(b, "). Try again in "...)
		b = append(b, after...)
		return append(b, " s.\n"...)
	}
	b = append(b, quotaExceeded...)
	b = append(b, p.Name...)
	b = append(b, `"],"retry_after":`...)
	b = append(b, after...)
	b = append(b, `,"reason":"rate_limited"`...)
	if len(id) > 0 { // validated characters only
		b = append(b, `,"request_id":"`...)
		b = append(b, id...)
		b = append(b, '"')
	}
	return append(b, "}\n"...)
}

// describe adds what a decision left, in the fields that the policy wants.
func describe(h *wire.Header, limiter *ratelimit.Limiter, v *ratelimit.Verdict) {
	switch limiter.Options.Headers {
	case "draft":
		var buffer [128]byte
		h.Add("RateLimit", limiter.AppendState(buffer[:0], v))
	case "x-ratelimit":
		legacy(h, limiter, v)
	}
}

// After tells the client how much is left, where policies want that with every
// response. Refusals tell it already.
func (l *Limit) After(x *exchange.Exchange, t *ratelimit.Ticket) {
	if l == nil || !l.announce || t.Refused != "" || x.Response.Header == nil {
		return
	}
	h := x.Response.Header
	var buffer [512]byte
	list := buffer[:0]
	old := (*ratelimit.Taken)(nil) // the tightest one, since these fields have room for one
	for i := range t.Len() {
		taken := t.Taken(i)
		if !taken.Limiter.Options.Announce || taken.Limiter.Paces() {
			continue
		}
		switch taken.Limiter.Options.Headers {
		case "draft":
			list = taken.Limiter.AppendState(separate(list), &taken.Verdict)
		case "x-ratelimit":
			if old == nil || taken.Verdict.Left < old.Verdict.Left {
				old = taken
			}
		}
	}
	if len(list) > 0 {
		h.Add("RateLimit-Policy", l.policies)
		h.Add("RateLimit", list)
	}
	if old != nil {
		legacy(h, old.Limiter, &old.Verdict)
	}
}

// legacy adds the fields that many clients know.
func legacy(h *wire.Header, limiter *ratelimit.Limiter, v *ratelimit.Verdict) {
	var buffer [20]byte
	h.Add("X-RateLimit-Limit", strconv.AppendInt(buffer[:0], limiter.Quota(), 10))
	h.Add("X-RateLimit-Remaining", strconv.AppendInt(buffer[:0], limiter.Remaining(v), 10))
	h.Add("X-RateLimit-Reset", strconv.AppendInt(buffer[:0], limiter.ResetAfter(v), 10))
}

// separate ends a member of a list if there is one.
func separate(list []byte) []byte {
	if len(list) > 0 {
		list = append(list, ", "...)
	}
	return list
}
