package middleware

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gateway/internal/match"
	"gateway/internal/unit"
	"gateway/wire"
)

// AccessOptions say from where a route may be used.
type AccessOptions struct {
	// Addresses and ranges that may use the route, such as "10.0.0.0/8" or
	// "::1". When the list is not empty everybody else is answered 403. The
	// address is that of the client; addresses that trusted_proxies forward
	// are considered. Off when empty.
	Allow []unit.Prefix `toml:"allow"`

	// Addresses and ranges that may not use the route and are answered 403,
	// even where allow names them too. Off when empty.
	Deny []unit.Prefix `toml:"deny"`
}

// RewriteOptions say which path the origin gets.
type RewriteOptions struct {
	// Taken from the beginning of the path before the request is forwarded:
	// with "/api" the origin gets "/users" for "/api/users", and "/" for
	// "/api". Only whole segments count; other paths stay as they are. Off
	// when empty.
	StripPrefix string `toml:"strip_prefix"`

	// Put before the path, after strip_prefix was taken away: with "/v2" the
	// origin gets "/v2/users" for "/users". Both together replace a prefix.
	// Off when empty.
	AddPrefix string `toml:"add_prefix"`
}

// HeaderOptions edit the fields of requests and responses: first the fields to
// remove, then those to set, then those to add.
type HeaderOptions struct {
	// Fields of the request to set before it is forwarded: all fields of that
	// name are replaced by one. Values are sent as they stand here.
	SetRequestHeaders map[string]string `toml:"set_request_headers"`

	// Fields to add to the request, beside those of the same name.
	AddRequestHeaders map[string]string `toml:"add_request_headers"`

	// Names of fields that the origin does not get.
	RemoveRequestHeaders []string `toml:"remove_request_headers"`

	// Fields of the response to set: all fields of that name are replaced by
	// one. Answers that the gateway makes itself have them too.
	SetResponseHeaders map[string]string `toml:"set_response_headers"`

	// Fields to add to the response, beside those of the same name.
	AddResponseHeaders map[string]string `toml:"add_response_headers"`

	// Names of fields that the client does not get.
	RemoveResponseHeaders []string `toml:"remove_response_headers"`
}

// CORSOptions are a policy that tells browsers which other sites may read the
// answers of a route. The gateway answers preflight requests itself, and its
// policy replaces whatever CORS fields the origin sends.
type CORSOptions struct {
	// Origins that may read answers: exact ones such as
	// "https://app.example.com", "https://*.example.com" for all names below
	// example.com, or "*" for every site. Requests of other origins are
	// answered without CORS fields, so that browsers keep the answer from
	// them; they are not refused.
	Origins []string `toml:"origins" default:"*"`

	// Methods that other sites may use. Browsers allow GET, HEAD and POST in
	// simple requests in any case.
	Methods []string `toml:"methods" default:"GET,HEAD,POST,PUT,PATCH,DELETE"`

	// Request fields that other sites may send; "*" allows whatever they ask
	// for, Authorization included.
	Headers []string `toml:"headers" default:"*"`

	// Response fields that other sites may read beside the few that browsers
	// always show; "*" shows all, but only without credentials.
	Expose []string `toml:"expose"`

	// Let other sites send cookies and HTTP authentication, and read answers
	// that were made for the user who is logged in. Only together with a list
	// of origins that are trusted that far: "*" is refused.
	Credentials bool `toml:"credentials" default:"false"`

	// How long browsers may remember the answer to a preflight request.
	// Browsers have limits of their own (two hours in Chrome, a day in
	// Firefox); "0s" makes them ask every time.
	MaxAge time.Duration `toml:"max_age" default:"10m" max:"7d"`
}

// Check reports prefixes that are no plain paths.
func (o *RewriteOptions) Check(report func(key, problem string)) {
	for _, p := range []struct{ key, value string }{{"strip_prefix", o.StripPrefix}, {"add_prefix", o.AddPrefix}} {
		if p.value == "" {
			continue
		}
		if _, err := match.ParsePrefix(p.value); err != nil {
			report(p.key, fmt.Sprintf("unexpected prefix %q: %v", p.value, err))
		}
	}
}

// Check reports names and values that are no field's, and fields that are the
// gateway's own business.
func (o *HeaderOptions) Check(report func(key, problem string)) {
	for _, l := range []struct {
		key    string
		fields map[string]string
		where  side
	}{
		{"set_request_headers", o.SetRequestHeaders, inRequest},
		{"add_request_headers", o.AddRequestHeaders, inRequest},
		{"set_response_headers", o.SetResponseHeaders, inResponse},
		{"add_response_headers", o.AddResponseHeaders, inResponse},
	} {
		seen := map[string]bool{}
		for _, name := range sorted(l.fields) {
			key := l.key + "." + name
			if problem := checkName(name, l.where); problem != "" {
				report(key, problem)
			} else if seen[strings.ToLower(name)] {
				report(key, fmt.Sprintf("field %q is given twice, in another spelling", name))
			} else if problem := checkValue(l.fields[name]); problem != "" {
				report(key, problem)
			}
			seen[strings.ToLower(name)] = true
		}
	}
	for _, name := range o.RemoveRequestHeaders {
		if problem := checkName(name, inRequest); problem != "" {
			report("remove_request_headers", problem)
		}
	}
	for _, name := range o.RemoveResponseHeaders {
		if problem := checkName(name, inResponse); problem != "" {
			report("remove_response_headers", problem)
		}
	}
}

// Check reports origins, methods and names that no browser sends, and a policy
// that would let every site act as the user.
func (o *CORSOptions) Check(report func(key, problem string)) {
	if len(o.Origins) == 0 {
		report("origins", `no origin is allowed; want "*" or at least one origin`)
	}
	for _, text := range o.Origins {
		if text == "*" {
			if len(o.Origins) > 1 {
				report("origins", `"*" allows every origin; want it alone`)
			}
			if o.Credentials {
				report("credentials", `credentials for the origin "*" would let every site act as the user; want a list of origins`)
			}
			continue
		}
		if _, err := parseOrigin(text); err != nil {
			report("origins", fmt.Sprintf("unexpected origin %q: %v", text, err))
		}
	}
	for _, m := range o.Methods {
		if !token(m) || m == "*" {
			report("methods", fmt.Sprintf("%q is no method", m))
		}
	}
	for _, l := range []struct {
		key   string
		names []string
	}{{"headers", o.Headers}, {"expose", o.Expose}} {
		for _, name := range l.names {
			switch {
			case !token(name):
				report(l.key, fmt.Sprintf("%q is no field name", name))
			case name == "*" && len(l.names) > 1:
				report(l.key, `"*" allows every field; want it alone`)
			case name == "*" && l.key == "expose" && o.Credentials:
				report(l.key, `browsers do not understand "*" together with credentials; want a list of fields`)
			}
		}
	}
	if o.MaxAge < 0 || o.MaxAge%time.Second != 0 {
		report("max_age", fmt.Sprintf("unexpected duration %v; want whole seconds", o.MaxAge))
	}
}

// side is where a field is.
type side uint8

const (
	inRequest side = iota
	inResponse
)

// framing are the fields that the gateway writes itself, or that describe one
// connection only: a wrong one breaks the connection or lets one message be
// read as two (RFC 9110 section 7.6.1, RFC 9112 section 6).
var framing = []wire.FieldID{
	wire.Connection, wire.ContentLength, wire.HTTP2Settings, wire.KeepAlive, wire.ProxyConnection,
	wire.TE, wire.Trailer, wire.TransferEncoding, wire.Upgrade,
}

// checkName is the problem with a name in a list of edits, "" if there is none.
func checkName(name string, where side) string {
	if !token(name) {
		return fmt.Sprintf("%q is no field name", name)
	}
	id := wire.LookupField([]byte(name))
	switch {
	case slices.Contains(framing, id):
		return fmt.Sprintf("field %q belongs to the connection; the gateway writes it itself", name)
	case id == wire.Host && where == inRequest:
		return `field "Host" is not edited; the upstream's option host says what origins get`
	case id == wire.Expect && where == inRequest:
		return `field "Expect" is answered by the gateway and never forwarded`
	case id == wire.Date && where == inResponse:
		return `field "Date" says when the response was made; it is not edited`
	}
	return ""
}

// checkValue is the problem with a field's value, "" if there is none.
func checkValue(value string) string {
	if strings.Trim(value, " \t") != value {
		return fmt.Sprintf("unexpected space at the ends of %q: it is not part of a field's value", value)
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Sprintf("control character in %q", value)
		}
	}
	return ""
}

// token: RFC 9110 section 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		if !tokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func tokenByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// sorted are the keys of m in order: maps have none, and neither the messages
// of a check nor the order of fields may differ from one run to the next.
func sorted[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
