package middleware

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway/exchange"
	"gateway/wire"
)

// CORS tells browsers which other sites may read a route's answers (the Fetch
// standard's CORS protocol). It decides nothing about the request itself: that
// an origin is not allowed only means that the answer says so by its silence.
type CORS struct {
	every bool // any origin, without credentials: the answer is the same for all
	exact map[string]bool
	wild  []wildOrigin

	credentials bool
	expose      string // joined lists; "" for none
	methods     string
	headers     string // "" with reflect
	reflect     bool   // allow the fields that the preflight asks for
	maxAge      string // seconds
}

// wildOrigin is an origin with "*." before its host.
type wildOrigin struct {
	scheme string // with "://"
	below  string // ".example.com", with the port if one was given
}

// NewCORS builds the stage. The options must have passed their Check.
func NewCORS(o CORSOptions) *CORS {
	c := &CORS{
		exact:       map[string]bool{},
		credentials: o.Credentials,
		expose:      strings.Join(o.Expose, ", "),
		methods:     strings.Join(o.Methods, ", "),
		headers:     strings.Join(o.Headers, ", "),
		maxAge:      strconv.FormatInt(int64(o.MaxAge/time.Second), 10),
	}
	if slices.Contains(o.Headers, "*") {
		// Reflected rather than "*", which does not include Authorization and
		// means nothing together with credentials.
		c.reflect, c.headers = true, ""
	}
	for _, text := range o.Origins {
		if text == "*" {
			c.every = true
			continue
		}
		origin, err := parseOrigin(text)
		if err != nil {
			panic(fmt.Sprintf("BUG: origin %q was not checked: %v", text, err))
		}
		if origin.below != "" {
			c.wild = append(c.wild, origin)
		} else {
			c.exact[origin.scheme] = true
		}
	}
	if c.every && c.credentials {
		panic("BUG: credentials for every origin were not checked")
	}
	return c
}

// parseOrigin reads "scheme://host[:port]" with or without "*." before the
// host. An exact origin is returned as a whole in scheme.
func parseOrigin(text string) (wildOrigin, error) {
	if text == "null" {
		return wildOrigin{}, errors.New(`"null" is sent for any sandboxed page; it can't be told apart and is not allowed`)
	}
	text = strings.ToLower(text)
	scheme, host, found := strings.Cut(text, "://")
	if !found || !token(scheme) {
		return wildOrigin{}, errors.New(`want "*", "https://app.example.com" or "https://*.example.com"`)
	}
	if strings.ContainsAny(host, "/?#@ ") || host == "" {
		return wildOrigin{}, errors.New("want scheme, host and port only, without a slash at the end")
	}
	name, wild := strings.CutPrefix(host, "*.")
	if strings.Contains(name, "*") || name == "" {
		return wildOrigin{}, errors.New(`"*" may only be the whole first label, as in "https://*.example.com"`)
	}
	if scheme == "https" && strings.HasSuffix(host, ":443") || scheme == "http" && strings.HasSuffix(host, ":80") {
		return wildOrigin{}, errors.New("browsers leave out the scheme's own port; want it left out here too")
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '"' || c == ',' {
			return wildOrigin{}, errors.New(`want a host name in ASCII; names outside it are written in their "xn--" form`)
		}
	}
	if wild {
		return wildOrigin{scheme: scheme + "://", below: "." + name}, nil
	}
	return wildOrigin{scheme: text}, nil
}

// matches reports whether an origin's host is below the pattern's.
func (w *wildOrigin) matches(origin []byte) bool {
	n := len(origin)
	if n <= len(w.scheme)+len(w.below) || string(origin[:len(w.scheme)]) != w.scheme ||
		string(origin[n-len(w.below):]) != w.below {
		return false
	}
	for _, c := range origin[len(w.scheme) : n-len(w.below)] {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

// allowed reports whether the policy names the origin.
func (c *CORS) allowed(origin []byte) bool {
	if c.every || c.exact[string(origin)] {
		return true
	}
	for i := range c.wild {
		if c.wild[i].matches(origin) {
			return true
		}
	}
	return false
}

// Preflight answers a preflight request with 204 and reports whether it was
// one. After it nothing else is to be done but to answer.
func (c *CORS) Preflight(x *exchange.Exchange) bool {
	if c == nil || x.Request.Method != wire.MethodOptions {
		return false
	}
	q := &x.Request.Header
	if !q.Has(wire.Origin) || !q.Has(wire.AccessControlRequestMethod) {
		return false
	}
	h := x.Own(204)
	origin := only(q, wire.Origin)
	if len(origin) == 0 || !c.allowed(origin) {
		c.vary(h)
		return true
	}
	c.grant(h, origin)
	if c.methods != "" {
		h.AddString("Access-Control-Allow-Methods", c.methods)
	}
	if c.reflect {
		h.AddString("Vary", "Access-Control-Request-Headers")
		if asked := only(q, wire.AccessControlRequestHeaders); validNames(asked) {
			h.Add("Access-Control-Allow-Headers", asked)
		}
	} else if c.headers != "" {
		h.AddString("Access-Control-Allow-Headers", c.headers)
	}
	h.AddString("Access-Control-Max-Age", c.maxAge)
	return true
}

// maxNames bounds the list of fields that a preflight is answered with.
const maxNames = 1024

// validNames reports whether value is a list of field names.
func validNames(value []byte) bool {
	for _, b := range value {
		if !tokenByte(b) && b != ',' && b != ' ' {
			return false
		}
	}
	return len(value) > 0 && len(value) <= maxNames
}

// After adds the policy to a response, in place of the origin's own. Running
// it again changes nothing.
func (c *CORS) After(x *exchange.Exchange) {
	if c == nil || x.Response.Header == nil {
		return
	}
	h := x.Response.Header
	for _, name := range ownFields {
		h.DelName(name)
	}
	origin := only(&x.Request.Header, wire.Origin)
	if !c.every && (len(origin) == 0 || !c.allowed(origin)) {
		c.vary(h)
		return
	}
	c.grant(h, origin)
	if c.expose != "" {
		h.AddString("Access-Control-Expose-Headers", c.expose)
	}
}

// ownFields are those of a response that the policy decides.
var ownFields = [][]byte{
	[]byte("Access-Control-Allow-Origin"),
	[]byte("Access-Control-Allow-Credentials"),
	[]byte("Access-Control-Expose-Headers"),
}

// grant lets an allowed origin read the answer.
func (c *CORS) grant(h *wire.Header, origin []byte) {
	if c.every {
		h.AddString("Access-Control-Allow-Origin", "*")
		return
	}
	h.Add("Access-Control-Allow-Origin", origin)
	if c.credentials {
		h.AddString("Access-Control-Allow-Credentials", "true")
	}
	c.vary(h)
}

// vary tells caches that the answer depends on the origin, whether or not this
// one is allowed.
func (c *CORS) vary(h *wire.Header) {
	if c.every {
		return
	}
	for i := h.Next(wire.Vary, 0); i >= 0; i = h.Next(wire.Vary, i+1) {
		if _, value, _, _ := h.Field(i); wire.HasToken(value, "origin") || wire.HasToken(value, "*") {
			return
		}
	}
	h.AddString("Vary", "Origin")
}
