package match

import (
	"slices"

	"gateway/internal/ascii"
	"gateway/wire"
)

// Router finds the first of many rules that matches a request. It is immutable
// and safe for concurrent use.
//
// Rules are filed by host and, within a host, by path: a map of literal paths
// and a tree of segments. A lookup visits the few places where a matching rule
// can be filed, and only there compares methods and conditions, in the order
// of the rules. What it costs depends on the number of rules that share host
// and path with the request, not on their total.
type Router struct {
	rules []compiled

	names    map[string]*paths // exact hosts
	below    map[string]*paths // "*.example.com" under "example.com"
	longest  int               // bytes of the longest key of below
	anywhere *paths            // rules for every host, nil without one
}

// compiled is what is left of a rule to compare after host and path.
type compiled struct {
	methods   uint64   // bit for each wire.Method but MethodOther; 0 with no others: every method
	others    []string // methods that wire does not know
	preflight bool
	scheme    string // "" for both
	headers   []Condition
	query     []Condition
}

// subject is what is matched.
type subject struct {
	*wire.Request
	scheme string
}

// paths are the rules filed under one host.
type paths struct {
	exact map[string][]int // by literal path
	tree  node
}

// node is a place in the tree of segments. Lists of rules are ascending.
type node struct {
	first    int              // the least rule here or further down
	children map[string]*node // by literal segment
	named    *node            // behind {name}
	here     []int            // patterns that end here
	rest     []int            // patterns that end here in "/*"
}

const none = int(^uint(0) >> 1) // larger than every index of a rule

// New builds the index. The rules must come from this package's parsers; they
// are not kept.
func New(rules []Rule) *Router {
	r := &Router{names: map[string]*paths{}, below: map[string]*paths{}}
	for i, rule := range rules {
		r.rules = append(r.rules, compile(rule))
		hosts := rule.Hosts
		if len(hosts) == 0 {
			hosts = []Host{{}}
		}
		for _, h := range hosts {
			p := r.under(h)
			if len(rule.Paths) == 0 {
				p.add(Path{rest: true}, i)
			}
			for _, pattern := range rule.Paths {
				p.add(pattern, i)
			}
		}
	}
	return r
}

func compile(rule Rule) compiled {
	c := compiled{headers: slices.Clone(rule.Headers), query: slices.Clone(rule.Query), preflight: rule.Preflight, scheme: rule.Scheme}
	for _, m := range rule.Methods {
		if known := wire.ParseMethod([]byte(m)); known != wire.MethodOther {
			c.methods |= 1 << known
		} else {
			c.others = append(c.others, m)
		}
	}
	return c
}

// under is where rules for this host are filed.
func (r *Router) under(h Host) *paths {
	if h.name == "" {
		if r.anywhere == nil {
			r.anywhere = newPaths()
		}
		return r.anywhere
	}
	index := r.names
	if h.wild {
		index = r.below
		r.longest = max(r.longest, len(h.name))
	}
	if index[h.name] == nil {
		index[h.name] = newPaths()
	}
	return index[h.name]
}

func newPaths() *paths {
	return &paths{exact: map[string][]int{}, tree: node{first: none}}
}

func (p *paths) add(pattern Path, rule int) {
	if pattern.literal != "" {
		p.exact[pattern.literal] = insert(p.exact[pattern.literal], rule)
		return
	}
	n := &p.tree
	for _, s := range pattern.segments {
		n.first = min(n.first, rule)
		if s.name != "" {
			if n.named == nil {
				n.named = &node{first: none}
			}
			n = n.named
			continue
		}
		if n.children[s.literal] == nil {
			if n.children == nil {
				n.children = map[string]*node{}
			}
			n.children[s.literal] = &node{first: none}
		}
		n = n.children[s.literal]
	}
	n.first = min(n.first, rule)
	if pattern.rest {
		n.rest = insert(n.rest, rule)
	} else {
		n.here = insert(n.here, rule)
	}
}

// insert appends a rule unless it is there already; rules come in order.
func insert(list []int, rule int) []int {
	if len(list) > 0 && list[len(list)-1] == rule {
		return list
	}
	return append(list, rule)
}

// Match is the index of the first rule that matches, -1 if none does. The
// request must have been parsed by package wire; scheme is "http" or "https", as
// the client sees it. It allocates nothing.
func (r *Router) Match(request *wire.Request, scheme string) int {
	q := &subject{request, scheme}
	best := none
	host := q.Hostname()
	if len(host) <= maxHost {
		if p := r.names[string(host)]; p != nil {
			best = r.path(p, q, best)
		}
		if r.longest > 0 {
			best = r.wildcards(host, q, best)
		}
	}
	if r.anywhere != nil {
		best = r.path(r.anywhere, q, best)
	}
	if best == none {
		return -1
	}
	return best
}

// wildcards looks for the names that host is below.
func (r *Router) wildcards(host []byte, q *subject, best int) int {
	for i := 1; i < len(host); i++ {
		if host[i] != '.' || len(host)-i-1 > r.longest {
			continue
		}
		if p := r.below[string(host[i+1:])]; p != nil {
			best = r.path(p, q, best)
		}
	}
	return best
}

// path is the least rule of p that matches, if it is less than best.
func (r *Router) path(p *paths, q *subject, best int) int {
	if len(p.exact) > 0 {
		best = r.least(p.exact[string(q.Path)], q, best)
	}
	if len(q.Path) == 0 || q.Path[0] != '/' {
		return r.least(p.tree.rest, q, best)
	}
	return r.walk(&p.tree, q, q.Path[1:], true, best)
}

// walk descends; more says that a segment, the beginning of path, follows.
// Both ways that a segment can take are tried, but a node is visited at most
// once, and not at all when nothing in it comes before best.
func (r *Router) walk(n *node, q *subject, path []byte, more bool, best int) int {
	if n.first >= best {
		return best
	}
	best = r.least(n.rest, q, best)
	if !more {
		return r.least(n.here, q, best)
	}
	end, next := 0, 0
	for end < len(path) && path[end] != '/' {
		end++
	}
	if more = end < len(path); more {
		next = end + 1
	} else {
		next = end
	}
	if n.children != nil {
		if child := n.children[string(path[:end])]; child != nil {
			best = r.walk(child, q, path[next:], more, best)
		}
	}
	if n.named != nil && end > 0 {
		best = r.walk(n.named, q, path[next:], more, best)
	}
	return best
}

// least is the first rule of the list that matches, if it is less than best.
func (r *Router) least(list []int, q *subject, best int) int {
	for _, i := range list {
		if i >= best {
			break
		}
		if r.rules[i].matches(q) {
			return i
		}
	}
	return best
}

// matches compares what the index does not.
func (c *compiled) matches(q *subject) bool {
	if c.scheme != "" && c.scheme != q.scheme {
		return false
	}
	if !c.takes(q.Method, q.MethodText) && !(c.preflight && c.takesPreflight(q)) {
		return false
	}
	for i := range c.headers {
		if !c.headers[i].inHeader(&q.Header) {
			return false
		}
	}
	for i := range c.query {
		if !c.query[i].inQuery(q.Query) {
			return false
		}
	}
	return true
}

func (c *compiled) takes(m wire.Method, text []byte) bool {
	if m != wire.MethodOther && c.methods>>m&1 != 0 {
		return true
	}
	return c.methods == 0 && c.others == nil || m == wire.MethodOther && contains(c.others, text)
}

// takesPreflight reports whether q asks, on behalf of a page of another site,
// for a method that the rule takes (the Fetch standard's CORS preflight).
func (c *compiled) takesPreflight(q *subject) bool {
	if q.Method != wire.MethodOptions || !q.Has(wire.Origin) {
		return false
	}
	asked := q.Get(wire.AccessControlRequestMethod)
	return asked != nil && c.takes(wire.ParseMethod(asked), asked)
}

func contains(list []string, text []byte) bool {
	for _, s := range list {
		if s == string(text) {
			return true
		}
	}
	return false
}

// inHeader reports whether a field satisfies the condition.
func (c *Condition) inHeader(h *wire.Header) bool {
	if c.id != wire.Unknown {
		for i := h.Next(c.id, 0); i >= 0; i = h.Next(c.id, i+1) {
			if _, value, _, _ := h.Field(i); c.any || string(value) == c.value {
				return true
			}
		}
		return false
	}
	for i := range h.Len() {
		name, value, id, ok := h.Field(i)
		if ok && id == wire.Unknown && ascii.EqualFold(name, c.name) && (c.any || string(value) == c.value) {
			return true
		}
	}
	return false
}

// inQuery reports whether a parameter satisfies the condition.
func (c *Condition) inQuery(query []byte) bool {
	for len(query) > 0 {
		end := 0
		for end < len(query) && query[end] != '&' {
			end++
		}
		pair := query[:end]
		query = query[min(end+1, len(query)):]
		split := 0
		for split < len(pair) && pair[split] != '=' {
			split++
		}
		if equalDecoded(pair[:split], c.name) && (c.any || equalDecoded(pair[min(split+1, len(pair)):], c.value)) {
			return true
		}
	}
	return false
}

// equalDecoded compares a part of a query with decoded text. An escape that
// is none stands for itself.
func equalDecoded(raw []byte, text string) bool {
	at := 0
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(raw) && hex(raw[i+1]) && hex(raw[i+2]):
			c = unhex(raw[i+1])<<4 | unhex(raw[i+2])
			i += 2
		}
		if at == len(text) || text[at] != c {
			return false
		}
		at++
	}
	return at == len(text)
}

// Matches reports whether the rule covers the request. It is what Router's
// index must agree with.
func (rule Rule) Matches(q *wire.Request, scheme string) bool {
	host, path := string(q.Hostname()), string(q.Path)
	c := compile(rule)
	return (len(rule.Hosts) == 0 || slices.ContainsFunc(rule.Hosts, func(h Host) bool { return h.Matches(host) })) &&
		(len(rule.Paths) == 0 || slices.ContainsFunc(rule.Paths, func(p Path) bool { return p.Matches(path) })) &&
		c.matches(&subject{q, scheme})
}
