package config

import (
	"fmt"
	"strings"
	"time"

	"gateway/internal/match"
	"gateway/internal/unit"
	"gateway/middleware"
	"gateway/middleware/cache"
	"gateway/middleware/compress"
	"gateway/middleware/ratelimit"
	"gateway/upstream"
)

// Route says which requests it takes and what happens to them: conditions, of
// which all must hold, exactly one action, and how that is carried out.
type Route struct {
	// The route's name in metrics and logs: letters, digits, _ and -, unique.
	// A route without a name gets one made of its host, path and methods.
	Name string `toml:"name"`

	// Condition: the host that the client asks for, or a list of them: a name,
	// "*.example.com" for the names below example.com, or an address. Ports
	// are not compared. Empty: every host.
	Host []string `toml:"host"`

	// Condition: the path, or a list of them. "/exact" is that path only,
	// "/users/*" is /users and everything below it, and {name} stands for one
	// segment, as in "/users/{id}/posts". Empty: every path.
	Path []string `toml:"path"`

	// Condition: the methods, such as ["GET", "HEAD"]. GET does not include
	// HEAD. Empty: every method.
	Methods []string `toml:"methods"`

	// Condition: how the client asks, http or https; a proxy before the gateway
	// that client.trusted_proxies names is believed.
	Scheme string `toml:"scheme" default:"any" enum:"any,http,https"`

	// Condition: request fields and their values, such as
	// { X-Beta = "1" }; "*" is any value. All of them must be there.
	Headers map[string]string `toml:"headers"`

	// Condition: parameters of the query and their values, decoded, such as
	// { preview = "1" }; "*" is any value. All of them must be there.
	Query map[string]string `toml:"query"`

	// Action: forward to the upstream of this name.
	Upstream string `toml:"upstream"`

	// Shares of the requests that go to other upstreams, such as
	// { canary = "5%" }; the rest goes to upstream. It goes by the client's
	// address: a client gets the same upstream each time, and keeps it while
	// its share grows.
	Split map[string]unit.Percent `toml:"split"`

	// Copies of requests that go to another upstream, such as
	// { upstream = "shadow", share = "10%" }. What is answered there is
	// forgotten, and the client never waits for it: when the upstream is too
	// slow, copies are dropped. Requests whose body is streamed, or has more than
	// 64KiB, are not copied.
	Mirror *Mirror `toml:"mirror"`

	// Action: send the client elsewhere.
	Redirect *Redirect `toml:"redirect"`

	// Action: answer with a fixed response.
	Respond *Respond `toml:"respond"`

	middleware.AccessOptions
	middleware.RewriteOptions
	middleware.HeaderOptions
	middleware.NeedsOptions

	// Which other sites may use the route from a browser: the name of a [cors]
	// table, a table, or true for its defaults. Off when missing: browsers
	// then keep answers from other sites, and the origin's own CORS fields are
	// passed on.
	CORS Choice[middleware.CORSOptions] `toml:"cors"`

	// Which JSON Web Tokens requests must bring: the name of a [jwt] table, or a
	// table. Off when missing. Preflight requests that the gateway answers need
	// none.
	JWT Choice[middleware.TokenOptions] `toml:"jwt"`

	// Limits that requests must all keep to: the name of a [limit] table, a
	// table, true for [limit.default], or a list of up to 8 names and tables.
	// A table in line has the name of the route. False is off; when missing,
	// [limit.default] applies if there is one.
	Limit []Choice[ratelimit.Options] `toml:"limit"`

	// Compress responses for clients that accept it: the name of a [compress]
	// table, a table, a list of codings in order of preference, such as
	// ["zstd", "gzip"], or true for the defaults. Off when missing.
	Compress Choice[compress.Options] `toml:"compress"`

	// How much the route's requests matter when the upstream is overloaded: with
	// "low" they are refused first, with 503 and Retry-After. The last tenth of
	// the limit that adaptive finds, and the last half of the queue, are for
	// normal ones, which also stand before them in the queue.
	Priority string `toml:"priority" default:"normal" enum:"normal,low"`

	// When a server has not answered after so long, such as "50ms", another one
	// is asked too: the answer that comes first is used, and the other attempt
	// is cancelled. "p95" is the time in which the upstream has answered 95 % of
	// its latest requests; "p90" and "p99" are possible as well. Only requests
	// that can be sent twice without harm are hedged, and only as far as the
	// upstream's retry.attempts and retry.budget allow. It makes the slowest
	// answers faster, for some more load. "off" asks one server.
	Hedge upstream.HedgeDelay `toml:"hedge" default:"off"`
	// Store responses and answer with them as their origin allows: the name of a
	// [caching] table, a table, or true for the defaults, with which nothing is
	// stored that the origin does not call cacheable. With jwt all whom the route
	// lets in share what is stored, and only what the origin calls public, or
	// cacheable for all by s-maxage or must-revalidate, is. Off when missing.
	Cache Choice[cache.RouteOptions] `toml:"cache"`

	// Longest time for the whole exchange, attempts and bodies included; what
	// has not ended then is answered 504 or cut off. Tunnels are exempt. "0s"
	// is no limit.
	Timeout time.Duration `toml:"timeout" default:"0s" min:"0s" max:"24h"`

	// The upstream's connect_timeout for this route alone. "0s" keeps the
	// upstream's.
	ConnectTimeout time.Duration `toml:"connect_timeout" default:"0s" min:"0s" max:"10m"`

	// The upstream's first_byte_timeout for this route alone. "0s" keeps the
	// upstream's.
	FirstByteTimeout time.Duration `toml:"first_byte_timeout" default:"0s" min:"0s" max:"24h"`

	// The upstream's between_timeout for this route alone. "0s" keeps the
	// upstream's.
	BetweenTimeout time.Duration `toml:"between_timeout" default:"0s" min:"0s" max:"24h"`

	// Largest request body; a larger one is answered 413. "0" is no limit:
	// then the origin must have one.
	MaxBody unit.Size `toml:"max_body" default:"10MiB"`

	// Request bodies up to this size are read before an attempt begins, so
	// that they can be sent again to another server. Larger ones are streamed.
	// Each request in flight may hold that much memory. "0" streams all.
	BufferBody unit.Size `toml:"buffer_body" default:"64KiB" max:"16MiB"`

	// Let clients upgrade the connection to a WebSocket or another protocol,
	// if the origin agrees.
	WebSocket bool `toml:"websocket" default:"true"`

	// Longest time without a byte in either direction before such a connection
	// is closed.
	TunnelIdleTimeout time.Duration `toml:"tunnel_idle_timeout" default:"10m" min:"1s" max:"7d"`

	limitNames []string // of the policies in Limit, "" for one that is off; set by finish
}

// Rule is what requests must be to belong to the route.
func (r *Route) Rule() match.Rule {
	return r.rule(func(_, problem string) { panic("BUG: route was not checked: " + problem) })
}

// Describe is the conditions as a line of text, for the status of a gateway:
// "GET,HEAD *.example.com /users,/users/* field X-Beta".
func (r *Route) Describe() string {
	var parts []string
	if r.Scheme != "any" && r.Scheme != "" {
		parts = append(parts, r.Scheme)
	}
	for _, list := range [][]string{r.Methods, r.Host, r.Path} {
		if len(list) > 0 {
			parts = append(parts, strings.Join(list, ","))
		}
	}
	for _, name := range names(r.Headers) {
		parts = append(parts, "field "+name) // the value may be a secret
	}
	for _, name := range names(r.Query) {
		parts = append(parts, "parameter "+name)
	}
	if parts == nil {
		return "every request"
	}
	return strings.Join(parts, " ")
}

// rule parses the conditions and reports those that are none.
func (r *Route) rule(report func(key, problem string)) (rule match.Rule) {
	for i, text := range r.Host {
		h, err := match.ParseHost(text)
		if err != nil {
			report(elementOf("host", i, len(r.Host)), fmt.Sprintf("unexpected host %q: %v", text, err))
			continue
		}
		rule.Hosts = append(rule.Hosts, h)
	}
	for i, text := range r.Path {
		p, err := match.ParsePath(text)
		if err != nil {
			report(elementOf("path", i, len(r.Path)), fmt.Sprintf("unexpected path %q: %v", text, err))
			continue
		}
		rule.Paths = append(rule.Paths, p)
	}
	for i, text := range r.Methods {
		m, err := match.ParseMethod(text)
		if err != nil {
			report(elementOf("methods", i, len(r.Methods)), fmt.Sprintf("unexpected method %q: %v", text, err))
			continue
		}
		rule.Methods = append(rule.Methods, m)
	}
	for _, name := range names(r.Headers) {
		c, err := match.ParseHeader(name, r.Headers[name])
		if err != nil {
			report(join("headers", name), fmt.Sprintf("unexpected condition: %v", err))
			continue
		}
		rule.Headers = append(rule.Headers, c)
	}
	for _, name := range names(r.Query) {
		c, err := match.ParseQuery(name, r.Query[name])
		if err != nil {
			report(join("query", name), fmt.Sprintf("unexpected condition: %v", err))
			continue
		}
		rule.Query = append(rule.Query, c)
	}
	if r.Scheme != "any" {
		rule.Scheme = r.Scheme
	}
	rule.Preflight = r.CORS.Value != nil // OPTIONS asks for leave to use the methods listed
	return rule
}

// elementOf is the key of an element; a list of one may have been written
// without brackets.
func elementOf(key string, i, n int) string {
	if n == 1 {
		return key
	}
	return element(key, i)
}

// Check reports conditions that are none, and actions that are none or more
// than one.
func (r *Route) Check(report func(key, problem string)) {
	if r.Name != "" {
		if problem := checkName(r.Name); problem != "" {
			report("name", problem)
		}
	}
	r.rule(report)
	r.checkShares(report)
	switch actions := r.actions(); len(actions) {
	case 0:
		report("", "no action; want upstream, redirect or respond")
	case 1:
	default:
		report("", strings.Join(actions, " and ")+" exclude each other; want one of them")
	}
}

// actions are the keys of those that the route has.
func (r *Route) actions() (keys []string) {
	if r.Upstream != "" {
		keys = append(keys, "upstream")
	}
	if r.Redirect != nil {
		keys = append(keys, "redirect")
	}
	if r.Respond != nil {
		keys = append(keys, "respond")
	}
	return keys
}
