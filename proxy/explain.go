package proxy

import (
	"fmt"
	"slices"
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/middleware"
	"gateway/middleware/cache"
	"gateway/upstream"
	"gateway/wire"
)

// Explanation is what would become of a request, and why: the life of a request
// (serve.go) walked with questions instead of deeds. Nothing is forwarded,
// counted or taken for it. What depends on the origin, or on who comes first, it
// does not know.
type Explanation struct {
	File    string       `json:"file,omitempty"`    // that lines are of
	Offline bool         `json:"offline,omitempty"` // from the file alone: nothing is stored, every bucket is full, no server was asked
	Request AskedRequest `json:"request"`
	Routes  []RouteTried `json:"routes"`          // up to the one that matches, in the order of the file
	Route   string       `json:"route,omitempty"` // that matches, "" for none
	Line    int          `json:"line,omitempty"`
	Action  string       `json:"action,omitempty"` // of the route, in words

	Stages   []StageResult           `json:"stages,omitempty"` // that were passed or not, in order
	Limits   []middleware.LimitState `json:"limits,omitempty"`
	Target   *Target                 `json:"target,omitempty"` // nil when no origin would be asked, whatever the cache has
	Cache    *CacheState             `json:"cache,omitempty"`  // nil when the route does not cache, or is not reached
	Pool     *upstream.Candidates    `json:"upstream,omitempty"`
	Compress *middleware.Coding      `json:"compress,omitempty"` // nil when the route does not compress
	Notes    []string                `json:"notes,omitempty"`
	Outcome  Outcome                 `json:"outcome"`
}

// AskedRequest is the request as the gateway understands it.
type AskedRequest struct {
	Method  string `json:"method"`
	Scheme  string `json:"scheme"`
	Host    string `json:"host"`
	Path    string `json:"path"` // normalised
	Query   string `json:"query,omitempty"`
	Client  string `json:"client,omitempty"`
	Trusted bool   `json:"trusted,omitempty"` // the peer may speak for others
}

// RouteTried is a route that was compared with the request.
type RouteTried struct {
	Name    string `json:"name"`
	Line    int    `json:"line,omitempty"`
	Matches bool   `json:"matches"`
	Option  string `json:"option,omitempty"` // the first condition that does not hold, as "host" or "headers.x-beta"
	At      int    `json:"option_line,omitempty"`
	Why     string `json:"why,omitempty"`
}

// StageResult is how a stage that can end a request has decided.
type StageResult struct {
	Stage  string `json:"stage"`
	Passed bool   `json:"passed"`
	Why    string `json:"why,omitempty"`
}

// Target is what the origin would be asked for.
type Target struct {
	Method string `json:"method"`
	Target string `json:"target"` // path and query, rewritten
	Host   string `json:"host"`
}

// CacheState is what the cache would say.
type CacheState struct {
	cache.KeyText
	Verdict string   `json:"verdict"`       // hit, stale, refresh, validate, miss, bypass, unavailable or unknown
	Why     string   `json:"why,omitempty"` // why no stored response answers
	Status  int      `json:"status,omitempty"`
	Age     *float64 `json:"age_seconds,omitempty"`
	TTL     *float64 `json:"ttl_seconds,omitempty"` // freshness left, negative when stale
	Store   string   `json:"store,omitempty"`       // why the origin's answer would not be stored, as far as that is up to the request
}

// Outcome is how the exchange would end.
type Outcome struct {
	By     string `json:"by"`               // "gateway", "cache" or "origin"
	Status int    `json:"status,omitempty"` // 0 when the origin decides
	Reason string `json:"reason"`           // as the access log has it
	Text   string `json:"text"`

	Location string `json:"location,omitempty"` // of a redirect
}

// explain walks the exchange, which is private to it: no front has made it, and
// it has no client. Its head has been parsed. The order is that of serve.
func (s *Snapshot) explain(x *exchange.Exchange) *Explanation {
	e := &Explanation{File: s.config.File(), Offline: s.offline}
	s.identity.Before(x)
	q := &x.Request
	e.Request = AskedRequest{Method: string(q.MethodText), Scheme: x.Scheme, Host: string(q.Host), Path: string(q.Path), Query: string(q.Query), Trusted: x.Trusted}
	if x.Addr.IsValid() {
		e.Request.Client = x.Addr.String()
	}
	if x.Fault != wire.NoFault {
		x.Fail(exchange.BadRequest)
		return e.end(x, "the head is refused: "+x.Fault.String())
	}
	x.Path, x.Query = q.Path, q.Query
	r := e.match(s, x)
	if r == nil {
		x.Fail(exchange.NoRoute)
		return e.end(x, "no route matches")
	}
	asked := r.compress.Before(x)
	text := e.walk(s, r, x)
	e.Compress = r.compress.Explain(x, asked)
	return e.end(x, text)
}

// match finds the route, and says of those before it why not.
func (e *Explanation) match(s *Snapshot, x *exchange.Exchange) *route {
	for i := range s.config.Routes {
		o := &s.config.Routes[i]
		key := fmt.Sprintf("route[%d]", i)
		tried := RouteTried{Name: o.Name, Line: s.config.Line(key)}
		if tried.Line == 0 {
			tried.Line = s.config.Line("upstream." + o.Upstream) // the route is implied
		}
		miss, missed := o.Rule().Why(&x.Request, x.Scheme)
		if missed {
			tried.Option, tried.Why = miss.Option, miss.Text
			if key += "." + miss.Option; miss.Name != "" {
				tried.Option += "." + miss.Name
			}
			tried.At = s.config.Line(key)
		}
		tried.Matches = !missed
		e.Routes = append(e.Routes, tried)
		if !missed {
			e.Route, e.Line, e.Action = o.Name, tried.Line, s.routes[i].action
			return s.routes[i]
		}
	}
	return nil
}

// walk is the stages behind the router. It leaves in the exchange the response
// that the client would get, if it is known, and returns how it comes about.
func (e *Explanation) walk(s *Snapshot, r *route, x *exchange.Exchange) string {
	if !e.limit(s, r, x, middleware.WhenAddress) {
		return e.limited(x)
	}
	if !e.stage("access", r.access != nil, r.access.Before(x), fmt.Sprintf("the address %s is denied", x.Addr)) {
		x.Fail(exchange.Denied)
		return "the client's address may not use the route"
	}
	if r.cors.Preflight(x) {
		return "the CORS policy answers the preflight request"
	}
	if !e.stage("token", r.token != nil, r.token.Before(x), "no valid token") {
		return "the request brings no valid token"
	}
	if !e.limit(s, r, x, middleware.WhenIdentity) {
		return e.limited(x)
	}
	if !e.stage("body", r.maxBody > 0 && x.Request.Length != 0, r.maxBody <= 0 || x.Request.Length <= r.maxBody, fmt.Sprintf("%d bytes; max_body is %d", x.Request.Length, r.maxBody)) {
		x.Fail(exchange.BodyTooLarge)
		return "the request's body is too large"
	}
	if r.respond != nil {
		r.respond.answer(x)
		return "the configuration has the answer"
	}
	r.rewrite.Before(x)
	t := r.choose(x)
	e.target(s, t, x)
	if t.cache != nil {
		return e.cached(s, t, x)
	}
	return e.forward(s, t, x)
}

// stage notes what a stage that is on has decided.
func (e *Explanation) stage(name string, on, passed bool, why string) bool {
	if on {
		if passed {
			why = ""
		}
		e.Stages = append(e.Stages, StageResult{name, passed, why})
	}
	return passed
}

// limit asks the policies of a place, and reports whether all agree.
func (e *Explanation) limit(s *Snapshot, r *route, x *exchange.Exchange, when string) bool {
	for _, state := range r.limit.Explain(x, when) {
		key := fmt.Sprintf("route[%d].limit", r.info.Index) // where a policy in line is
		if _, named := s.config.Limits[state.Policy]; named {
			key = "limit." + state.Policy
		}
		state.Line = s.config.Line(key)
		if !state.Known {
			e.note("the bucket of limit %q is in Redis, and is not asked here", state.Policy)
		}
		if s.offline {
			state.Store = s.config.AllLimits()[state.Policy].Store
		}
		e.Limits = append(e.Limits, state)
		if state.Refuses() {
			return false
		}
	}
	return true
}

// limited is the refusal by the policy that was asked last.
func (e *Explanation) limited(x *exchange.Exchange) string {
	x.Fail(exchange.RateLimited)
	return fmt.Sprintf("limit %q refuses the request", e.Limits[len(e.Limits)-1].Policy)
}

func (e *Explanation) target(s *Snapshot, t *target, x *exchange.Exchange) {
	target := string(x.Path)
	if x.Query != nil {
		target += "?" + string(x.Query)
	}
	host := t.host
	if host == "" {
		host = string(x.Request.Host)
	}
	e.Target = &Target{Method: string(x.Request.MethodText), Target: target, Host: host}
	if t.split != nil && !x.Addr.IsValid() {
		e.note("the upstream is drawn: the client has no address")
	}
	if x.Request.Upgrade != nil && !t.upgrades {
		e.note("the upgrade is ignored: websocket is false")
	}
	if s.offline && t.needs == nil {
		if o := &s.config.Routes[t.info.Index]; len(o.Needs) > 0 {
			e.note("whether %q are connected is not known here", o.Needs)
		}
	}
}

// cached is throughCache with questions.
func (e *Explanation) cached(s *Snapshot, t *target, x *exchange.Exchange) string {
	var body []byte
	if x.Request.Method == wire.MethodQuery {
		if x.Request.Length != 0 {
			e.Cache = &CacheState{Verdict: "unknown", Why: "the key depends on the request's body"}
			return e.forward(s, t, x)
		}
		body = []byte{}
	}
	verdict := t.cache.Examine(x, body)
	l := &x.Lookup
	state := &CacheState{Verdict: verdicts[verdict], Why: whyForward(l), Store: unstored(l)}
	state.KeyText, _ = l.Key()
	e.Cache = state
	if l.Entry.Valid() {
		now := clock.Nanos()
		age, left := seconds(l.Terms.Age(now)), seconds(l.Terms.Left(now))
		state.Status, state.Age, state.TTL = l.Entry.Status(), &age, &left
	}
	switch verdict {
	case cache.Hit, cache.HitStale, cache.HitRefresh:
		state.Store = ""
		t.cache.Serve(x)
		if verdict == cache.HitRefresh {
			return "a stale stored response answers, and a new one is fetched meanwhile"
		}
		if verdict == cache.HitStale {
			return "a stale stored response answers"
		}
		return "a stored response answers"
	case cache.Unavailable:
		x.Fail(exchange.NotCached)
		return "the client wants a stored response alone"
	case cache.Bypass:
		return e.forward(s, t, x)
	}
	if s.config.Cache.Redis {
		e.note("the cache's Redis tier is asked before the origin; it is not asked here")
	}
	if !t.needs.Before(x) {
		if t.needs.Stale() && verdict == cache.Validate && l.Terms.MayDisconnected(&l.Asked.Control) {
			t.cache.Serve(x)
			return "a stale stored response answers: a dependency is down"
		}
		return e.down(x)
	}
	text := e.forward(s, t, x)
	if e.Pool == nil || l.Asked.Control.Has(cache.NoStore) || !t.mayServeStale(x, true) {
		return text
	}
	if x.Response.Header != nil { // the pool has nobody
		t.cache.Serve(x)
		return "a stored response answers: no server may be asked"
	}
	if t.mayServeStale(x, false) {
		e.note("should the origin fail, the stored response answers")
	} else {
		e.note("should the origin give no answer, the stored response answers")
	}
	return text
}

var verdicts = [...]string{
	cache.Bypass: "bypass", cache.Miss: "miss", cache.Hit: "hit", cache.HitStale: "stale",
	cache.HitRefresh: "refresh", cache.Validate: "validate", cache.Unavailable: "unavailable",
}

func seconds(ns int64) float64 { return time.Duration(ns).Round(time.Millisecond).Seconds() }

// whyForward says why no stored response answers by itself.
func whyForward(l *cache.Lookup) string {
	switch l.Forward {
	case cache.ForwardMethod:
		return "only GET and HEAD without a body, and QUERY, are for the cache"
	case cache.ForwardURIMiss:
		return "nothing is stored under this key"
	case cache.ForwardVaryMiss:
		return "what is stored varies by fields that have other values in this request"
	case cache.ForwardRequest:
		if l.Verdict == cache.Bypass {
			return "If-Match, If-Unmodified-Since and upgrades are for the origin"
		}
		return "the request asks for an answer that the origin has confirmed"
	case cache.ForwardStale:
		return "what is stored is stale, or has to be validated each time"
	case cache.ForwardPartial:
		return "only another part of the response is stored"
	}
	return ""
}

// unstored says what about the request keeps the answer from being stored.
func unstored(l *cache.Lookup) string {
	switch {
	case l.Verdict == cache.Bypass:
		return "the request passes the cache by"
	case l.Asked.Control.Has(cache.NoStore):
		return "the request says no-store"
	case l.Asked.Method == wire.MethodHead:
		return "an answer to HEAD has no body"
	case l.Asked.Authorized:
		return "the request has Authorization: unless the answer allows it"
	}
	return ""
}

// down is the answer while a dependency is disconnected; it has been made.
func (e *Explanation) down(x *exchange.Exchange) string {
	e.stage("needs", true, false, "a dependency is disconnected")
	return "a backend of the servers is down"
}

// forward is mayAsk and the first pick of forward, with questions.
func (e *Explanation) forward(s *Snapshot, t *target, x *exchange.Exchange) string {
	if !t.needs.Before(x) {
		return e.down(x)
	}
	e.stage("needs", t.needs != nil, true, "")
	if !e.limit(s, t.route, x, middleware.WhenMiss) {
		return e.limited(x)
	}
	candidates, verdict := t.pool.Candidates(t.intents.of(x))
	candidates.Line = s.config.Line("upstream." + t.pool.Name)
	e.Pool = &candidates
	if s.offline {
		for _, o := range s.config.Upstreams[t.pool.Name].Servers {
			if !slices.ContainsFunc(candidates.Servers, func(c upstream.Candidate) bool { return c.Address == o.Address }) && len(candidates.Names) > 0 {
				candidates.Unknown = append(candidates.Unknown, o.Address)
			}
		}
		candidates.Names = nil
		if len(candidates.Unknown) > 0 {
			candidates.Verdict, candidates.Next, candidates.Why = "unknown", "", ""
			return "the origin answers"
		}
	}
	switch {
	case verdict == upstream.Picked:
		return "the origin answers"
	case verdict.Waits() && t.pool.Options.Queue > 0:
		e.note("the request waits for a server, at most %v", t.pool.Options.QueueTimeout)
		return "the origin answers, after a wait"
	}
	x.Fail(reasonOfVerdict(x, verdict))
	return "no server may be asked"
}

func (e *Explanation) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(e.Notes, text) {
		e.Notes = append(e.Notes, text)
	}
}

// end says how the exchange ends.
func (e *Explanation) end(x *exchange.Exchange, text string) *Explanation {
	e.Outcome = Outcome{By: "gateway", Status: x.Response.Status, Reason: x.Reason.String(), Text: text}
	switch {
	case x.Response.Header == nil:
		e.Outcome.By = "origin"
	case x.Reason == exchange.Done && e.Cache != nil:
		e.Outcome.By = "cache"
	}
	if h := x.Response.Header; h != nil && e.Outcome.By == "gateway" {
		e.Outcome.Location = string(h.Get(wire.Location))
	}
	return e
}
