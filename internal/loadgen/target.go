package loadgen

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gateway/wire"
)

// Target is a request to send. In the URL's path and query, in field values and
// in the body "{n}" becomes a number of ten digits that no two requests share,
// and "{key}" one of the plan's keys, in ten digits as well.
type Target struct {
	Method string
	URL    string
	Header []Field
	Body   []byte
	Weight int // share of the requests, relative to the other targets'; 0 means 1
}

// Field is one header field.
type Field struct{ Name, Value string }

const placeholderDigits = 10

var placeholders = [...]string{"{n}", "{key}"}

// site is where connections go.
type site struct {
	secure     bool
	address    string // host:port
	serverName string
}

// pattern is a target as it is sent.
type pattern struct {
	site   site
	text   string
	method wire.Method
	holes  []hole
	weight int
}

// hole is a place of a pattern that each request fills.
type hole struct {
	at  int
	key bool // a key instead of the number of the request
}

// pattern renders the target.
func (t *Target) pattern() (*pattern, error) {
	u, err := url.Parse(strings.NewReplacer("{", "%7B", "}", "%7D").Replace(t.URL))
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("URL %q; want http://HOST/… or https://HOST/…", t.URL)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	c := &pattern{
		site:   site{secure: u.Scheme == "https", address: net.JoinHostPort(u.Hostname(), port), serverName: u.Hostname()},
		weight: max(t.Weight, 1),
	}
	method := t.Method
	if method == "" {
		method = "GET"
	}
	c.method = wire.ParseMethod([]byte(method))

	var head strings.Builder
	target := strings.NewReplacer("%7B", "{", "%7D", "}").Replace(u.RequestURI())
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\n", method, target)
	given := map[string]bool{}
	for _, f := range t.Header {
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		if name == "Transfer-Encoding" || name == "Content-Length" {
			return nil, fmt.Errorf("header field %s is set from the body", name)
		}
		if name == "Host" {
			c.site.serverName, _, _ = strings.Cut(f.Value, ":")
		}
		given[name] = true
	}
	field := func(name, value string) {
		if !given[name] {
			fmt.Fprintf(&head, "%s: %s\r\n", name, value)
		}
	}
	field("Host", u.Host)
	field("User-Agent", "gateway-load")
	field("Accept", "*/*")
	for _, f := range t.Header {
		fmt.Fprintf(&head, "%s: %s\r\n", f.Name, f.Value)
	}
	body := fill(string(t.Body), nil)
	if len(body) > 0 || c.method == wire.MethodPost || c.method == wire.MethodPut || c.method == wire.MethodPatch {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", len(body))
	}
	head.WriteString("\r\n")
	var parsed wire.Request
	if _, fault := parsed.Parse([]byte(fill(head.String(), nil)), &wire.Limits{}); fault != wire.NoFault {
		return nil, fmt.Errorf("not a valid request: %v", fault)
	}
	if parsed.Expect || parsed.Upgrade != nil {
		return nil, fmt.Errorf("a request that waits for 100 Continue or asks for an upgrade cannot be loaded with")
	}
	c.text = fill(head.String()+string(t.Body), &c.holes)
	return c, nil
}

// fill replaces placeholders by digits and notes where they are.
func fill(s string, holes *[]hole) string {
	var out strings.Builder
	for {
		at, which := -1, 0
		for i, p := range placeholders {
			if k := strings.Index(s, p); k >= 0 && (at < 0 || k < at) {
				at, which = k, i
			}
		}
		if at < 0 {
			out.WriteString(s)
			return out.String()
		}
		out.WriteString(s[:at])
		if holes != nil {
			*holes = append(*holes, hole{at: out.Len(), key: which == 1})
		}
		out.WriteString(strings.Repeat("0", placeholderDigits))
		s = s[at+len(placeholders[which]):]
	}
}

// putDigits writes v into b, all of it.
func putDigits(b []byte, v uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
}

// sites are the distinct places that the targets go to, in order.
func (p *Plan) sites() ([]site, error) {
	var all []site
	for i := range p.Targets {
		t, err := p.Targets[i].pattern()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, t.site) {
			all = append(all, t.site)
		}
	}
	return all, nil
}

// ReadTargets reads targets from a file:
//
//	# comment
//	GET http://localhost:8080/users/{key}
//	Accept: application/json
//
//	2 POST http://localhost:8080/users
//	Content-Type: application/json
//	= {"name":"user {n}"}
//
//	PUT http://localhost:8080/blobs/{n}
//	@blob.bin
//
// Each begins with an optional weight, a method and a URL; header fields follow,
// and a body: the rest of a line after "= ", or a file after "@", looked for
// beside this one. A blank line ends a target.
func ReadTargets(path string) ([]Target, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseTargets(f, path)
}

func parseTargets(r io.Reader, path string) ([]Target, error) {
	var all []Target
	var current *Target
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 4<<20)
	for number := 1; lines.Scan(); number++ {
		line := bytes.TrimSpace(lines.Bytes())
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s", path, number, fmt.Sprintf(format, args...))
		}
		switch {
		case len(line) == 0:
			current = nil
		case line[0] == '#':
		case current == nil:
			words := strings.Fields(string(line))
			t := Target{Weight: 1}
			if w, err := strconv.Atoi(words[0]); err == nil {
				if w < 1 || w > 1_000_000 {
					return nil, wrong("weight %d; want 1 to 1000000", w)
				}
				t.Weight, words = w, words[1:]
			}
			if len(words) != 2 {
				return nil, wrong("%q; want [WEIGHT] METHOD URL", line)
			}
			t.Method, t.URL = words[0], words[1]
			if _, err := t.pattern(); err != nil {
				return nil, wrong("%v", err)
			}
			all = append(all, t)
			current = &all[len(all)-1]
		case line[0] == '=' || line[0] == '@':
			if current.Body != nil {
				return nil, wrong("a second body")
			}
			if line[0] == '=' {
				current.Body = bytes.Clone(bytes.TrimPrefix(line[1:], []byte(" ")))
				break
			}
			name := string(line[1:])
			if !filepath.IsAbs(name) {
				name = filepath.Join(filepath.Dir(path), name)
			}
			body, err := os.ReadFile(name)
			if err != nil {
				return nil, wrong("body: %v", err)
			}
			current.Body = body
		default:
			field, err := ParseField(string(line))
			if err != nil {
				return nil, wrong("%v", err)
			}
			current.Header = append(current.Header, field)
			if _, err := current.pattern(); err != nil {
				return nil, wrong("%v", err)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no targets; want lines such as GET http://localhost:8080/", path)
	}
	return all, nil
}

// ParseField reads "Name: value".
func ParseField(s string) (Field, error) {
	name, value, ok := strings.Cut(s, ":")
	if !ok {
		return Field{}, fmt.Errorf("header field %q; want \"Name: value\"", s)
	}
	return Field{strings.TrimSpace(name), strings.TrimSpace(value)}, nil
}
