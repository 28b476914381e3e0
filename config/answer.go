package config

import (
	"fmt"
	"strings"
)

// Redirect is an answer that sends the client to another address.
type Redirect struct {
	// The address to go to: a URL, or a path on the same host. {host}, {path}
	// and {query} stand for those of the request: the host without its port,
	// and the query with its "?". "https://{host}{path}{query}" moves
	// everything to TLS.
	To string `toml:"to"`

	// The status of the answer. 308 and 301 are permanent, and browsers
	// remember them; 307, 302 and 303 are temporary. 307 and 308 keep the
	// method, 303 makes it GET.
	Status int `toml:"status" default:"308" enum:"301,302,303,307,308"`
}

// Respond is an answer that the configuration fixes.
type Respond struct {
	// The status of the answer.
	Status int `toml:"status" default:"200" min:"200" max:"599"`

	// The body of the answer. Must be empty for 204, 205 and 304.
	Body string `toml:"body"`

	// The type of the body.
	ContentType string `toml:"content_type" default:"text/plain; charset=utf-8"`
}

// placeholders of Redirect.To.
var placeholders = []string{"{host}", "{path}", "{query}"}

// Check reports addresses that no client understands, or that would let
// requests decide which site the client goes to.
func (r *Redirect) Check(report func(key, problem string)) {
	if r.To == "" {
		report("to", `missing; want a URL such as "https://{host}{path}{query}" or a path`)
		return
	}
	for i := range len(r.To) {
		if r.To[i] <= ' ' || r.To[i] >= 0x7f {
			report("to", fmt.Sprintf("unexpected %q in %q; want printable ASCII, the rest percent-encoded", r.To[i:i+1], r.To))
			return
		}
	}
	for rest := r.To; ; {
		_, after, found := strings.Cut(rest, "{")
		if !found {
			break
		}
		name, after, closed := strings.Cut(after, "}")
		if !closed || !contains(placeholders, "{"+name+"}") {
			report("to", fmt.Sprintf("unknown placeholder {%s} in %q; want %s", name, r.To, either(placeholders)))
			return
		}
		rest = after
	}
	if r.To[0] == '/' {
		// {path} begins with a slash itself.
		if strings.HasPrefix(r.To, "//") || strings.HasPrefix(r.To, `/\`) || strings.HasPrefix(r.To, "/{path}") {
			report("to", fmt.Sprintf(`%q would lead to the host that follows "//"; want a path such as "/new{path}"`, r.To))
		}
		return
	}
	rest, secure := strings.CutPrefix(r.To, "https://")
	rest, plain := strings.CutPrefix(rest, "http://")
	if secure == plain {
		report("to", fmt.Sprintf(`unexpected %q; want a URL with http:// or https://, or a path that begins with "/"`, r.To))
	} else if rest == "" || strings.ContainsAny(rest[:1], `/\?#:`) || strings.HasPrefix(rest, "{path}") || strings.HasPrefix(rest, "{query}") {
		report("to", fmt.Sprintf(`no host in %q; want one such as "https://{host}{path}{query}"`, r.To))
	}
}

// Check reports bodies where none may be, and types that are no field value.
func (r *Respond) Check(report func(key, problem string)) {
	if r.Body != "" && (r.Status == 204 || r.Status == 205 || r.Status == 304) {
		report("body", fmt.Sprintf("an answer with status %d has no body", r.Status))
	}
	for i := range len(r.ContentType) {
		if c := r.ContentType[i]; c < ' ' || c >= 0x7f {
			report("content_type", fmt.Sprintf("unexpected %q; want a media type such as %q", r.ContentType, "application/json"))
			return
		}
	}
}
