package wire

import (
	"bytes"
	"strings"
	"testing"
)

// split takes a head apart as another parser would, for ParseParts; ok is
// false when that is not possible.
func split(head string) (method, target, version, fields []byte, ok bool) {
	head = strings.TrimPrefix(head, "\r\n")
	line, rest, ok := strings.Cut(head, "\r\n")
	parts := strings.Split(line, " ")
	if !ok || len(parts) != 3 {
		return nil, nil, nil, nil, false
	}
	return []byte(parts[0]), []byte(parts[1]), []byte(parts[2]), []byte(rest), true
}

var testLimits = &Limits{MaxTarget: 100, MaxHeader: 1000, MaxFields: 20}

// A row for every fault that a request can have, and the classics of request
// smuggling. The rows of path_test.go and header_test.go are not repeated.
var requestFaults = []struct {
	name, head string
	want       Fault
}{
	{"HTTP/0.9", "GET /\r\n\r\n", BadRequestLine},
	{"no target", "GET HTTP/1.1\r\nHost: h\r\n\r\n", BadRequestLine},
	{"two spaces after the method", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", BadRequestLine},
	{"two spaces after the target", "GET /  HTTP/1.1\r\nHost: h\r\n\r\n", BadRequestLine},
	{"space after the version", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", BadRequestLine},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", BadRequestLine},
	{"version in lower case", "GET / http/1.1\r\nHost: h\r\n\r\n", BadRequestLine},
	{"no version number", "GET / HTTP/\r\nHost: h\r\n\r\n", BadRequestLine},
	{"other protocol", "GET / ICY/1.1\r\nHost: h\r\n\r\n", BadRequestLine},
	{"version with letters", "GET / HTTP/1.x\r\nHost: h\r\n\r\n", BadRequestLine},
	{"only a method", "GET\r\n\r\n", BadRequestLine},
	{"HTTP/0.9 in words", "GET / HTTP/0.9\r\nHost: h\r\n\r\n", BadVersion},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", BadVersion},
	{"HTTP/1.10", "GET / HTTP/1.10\r\nHost: h\r\n\r\n", BadVersion},
	{"HTTP/01.1", "GET / HTTP/01.1\r\nHost: h\r\n\r\n", BadVersion},
	{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadVersion},
	{"empty method", " / HTTP/1.1\r\nHost: h\r\n\r\n", BadMethod},
	{"method with a colon", "GET: / HTTP/1.1\r\nHost: h\r\n\r\n", BadMethod},
	{"tab after the method", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", BadMethod},
	{"control byte before the method", "\x16\x03\x01\x02\x00\x01\r\n", BadMethod},
	{"method of 33 bytes", strings.Repeat("M", 33) + " / HTTP/1.1\r\nHost: h\r\n\r\n", BadMethod},
	{"asterisk with GET", "GET * HTTP/1.1\r\nHost: h\r\n\r\n", BadTarget},
	{"asterisk and more", "OPTIONS *a HTTP/1.1\r\nHost: h\r\n\r\n", BadTarget},
	{"relative target", "GET index.html HTTP/1.1\r\nHost: h\r\n\r\n", BadTarget},
	{"long target", "GET /" + strings.Repeat("a", 100) + " HTTP/1.1\r\nHost: h\r\n\r\n", TargetTooLong},
	{"large header", "GET / HTTP/1.1\r\nHost: h\r\nA: " + strings.Repeat("a", 1000) + "\r\n\r\n", HeaderTooLarge},
	{"many fields", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("A: b\r\n", 20) + "\r\n", TooManyFields},
	{"request line ended by LF", "GET / HTTP/1.1\nHost: h\r\n\r\n", BareLF},
	{"head ended by LF LF", "GET / HTTP/1.1\r\nHost: h\n\n", BareLF},
	{"blank line of LF alone", "GET / HTTP/1.1\r\nHost: h\r\n\n", BareLF},
	{"LF before the request line", "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", BareLF},
	{"CR in the request line", "GET /a\rb HTTP/1.1\r\nHost: h\r\n\r\n", BareCR},
	{"two CR after the request line", "GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", BadRequestLine},
	{"CR in the blank line", "GET / HTTP/1.1\r\nHost: h\r\n\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", BareCR},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: h\x00.evil\r\n\r\n", ControlByte},
	{"fold that hides a coding", "POST / HTTP/1.1\r\nHost: h\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n", ObsoleteFold},
	{"white space before the first field", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", ObsoleteFold},
	{"space before the colon of a length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\n", SpaceBeforeColon},
	{"space in a name", "GET / HTTP/1.1\r\nHost: h\r\nFoo Bar: x\r\n\r\n", BadFieldName},
	{"field without colon", "GET / HTTP/1.1\r\nHost: h\r\nFoo\r\n\r\n", MissingColon},
	{"no Host", "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", MissingHost},
	{"no fields", "GET / HTTP/1.1\r\n\r\n", MissingHost},
	{"no Host with an absolute target", "GET http://h/ HTTP/1.1\r\nAccept: */*\r\n\r\n", MissingHost},
	{"two Host fields", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", DuplicateHost},
	{"two equal Host fields", "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", DuplicateHost},
	{"two Host fields in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", DuplicateHost},
	{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", BadHost},
	{"Host contradicts the target", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", HostMismatch},
	{"Host has another port than the target", "GET http://a:81/ HTTP/1.1\r\nHost: a:80\r\n\r\n", HostMismatch},
	{"Host with user", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", Userinfo},
	{"fragment", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", Fragment},
	{"CONNECT", "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", ConnectRefused},
	{"TRACE", "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", TraceRefused},
	{"broken escape", "GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", BadPercent},
	{"above the root", "GET /../x HTTP/1.1\r\nHost: h\r\n\r\n", AboveRoot},

	{"CL.TE", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", LengthAndCoding},
	{"TE.CL", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nA\r\n0\r\n\r\n", LengthAndCoding},
	{"TE with broken coding and CL", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\n", LengthAndCoding},
	{"many connection options", "GET / HTTP/1.1\r\nHost: h\r\nConnection: " + strings.Repeat("a,", 65) + "\r\n\r\n", TooManyFields},
	{"two Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", DuplicateContentLength},
	{"two equal Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", DuplicateContentLength},
	{"list in Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\n", BadContentLength},
	{"plus in Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n", BadContentLength},
	{"minus in Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n", BadContentLength},
	{"hexadecimal Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\n", BadContentLength},
	{"empty Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", BadContentLength},
	{"Content-Length with a space inside", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1 2\r\n\r\n", BadContentLength},
	{"Content-Length beyond int64", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551621\r\n\r\n", BadContentLength},
	{"Content-Length of 19 digits", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0000000000000000005\r\n\r\n", BadContentLength},
	{"Content-Length with underscore", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1_0\r\n\r\n", BadContentLength},
	{"chunked twice", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", UnknownCoding},
	{"chunked in two fields", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", UnknownCoding},
	{"chunked, then identity in two fields", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-encoding: identity\r\n\r\n", UnknownCoding},
	{"identity", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", UnknownCoding},
	{"gzip, chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", UnknownCoding},
	{"chunked, gzip", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", UnknownCoding},
	{"empty coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", UnknownCoding},
	{"coding of commas", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ,chunked\r\n\r\n", UnknownCoding},
	{"quoted coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", UnknownCoding},
	{"xchunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n", UnknownCoding},
	{"chunked with parameter", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", UnknownCoding},
	{"chunked with text that folds by Unicode", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chun\xe2\x84\xaaed\r\n\r\n", UnknownCoding},
	{"vertical tab before chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", ControlByte},
	{"tab before the colon of a coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\t: chunked\r\n\r\n", SpaceBeforeColon},
	{"coding behind a bare LF", "POST / HTTP/1.1\r\nHost: h\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n", BareLF},
	{"coding behind a bare CR", "POST / HTTP/1.1\r\nHost: h\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n", BareCR},
	{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", CodingInHTTP10},
	{"chunked in HTTP/1.0 with length", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", CodingInHTTP10},

	{"Expect something", "POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n", BadExpect},
	{"Expect nothing", "POST / HTTP/1.1\r\nHost: h\r\nExpect:\r\n\r\n", BadExpect},
	{"Expect more than 100-continue", "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue, x\r\n\r\n", BadExpect},
	{"Expect in two fields", "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nExpect: x\r\n\r\n", BadExpect},
	{"h2c", "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", UpgradeRefused},
	{"h2c without Connection", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n", UpgradeRefused},
	{"H2C in a list", "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket, H2C\r\n\r\n", UpgradeRefused},
	{"h2c in a second field", "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n", UpgradeRefused},
	{"HTTP/2.0 as upgrade", "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: HTTP/2.0\r\n\r\n", UpgradeRefused},
	{"HTTP2-Settings alone", "GET / HTTP/1.1\r\nHost: h\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", UpgradeRefused},
	{"h2c in HTTP/1.0", "GET / HTTP/1.0\r\nUpgrade: h2c\r\n\r\n", UpgradeRefused},
}

func TestRequestsAreRefused(t *testing.T) {
	covered := make(map[Fault]bool)
	for _, c := range requestFaults {
		covered[c.want] = true
		var r Request
		if n, f := r.Parse([]byte(c.head), testLimits); f != c.want || n != 0 {
			t.Errorf("%s: Parse gives %d, %q, want %q", c.name, n, f, c.want)
		}
		if s := c.want.Status(); s < 400 || s > 505 {
			t.Errorf("%s: status %d", c.name, s)
		}
		method, target, version, fields, ok := split(c.head)
		if !ok {
			continue
		}
		// Bytes behind the head belong to nobody in ParseParts.
		if i := bytes.Index(fields, []byte("\r\n\r\n")); i >= 0 {
			fields = fields[:i+4]
		}
		if f := r.ParseParts(method, target, version, fields, testLimits); f == NoFault {
			t.Errorf("%s: ParseParts accepts it", c.name)
		}
	}
	elsewhere := []Fault{NoFault, EncodedSlash, BadChunk, BadTrailer, BadStatusLine}
	for f := range faultCount {
		if f.String() == "" {
			t.Errorf("fault %d has no text", f)
		}
		if !covered[f] && !bytes.Contains(faultBytes(elsewhere), []byte{byte(f)}) {
			t.Errorf("no request with fault %q", f)
		}
	}
}

func faultBytes(faults []Fault) (b []byte) {
	for _, f := range faults {
		b = append(b, byte(f))
	}
	return b
}

func TestFaultStatus(t *testing.T) {
	want := map[Fault]int{
		NoFault: 0, TargetTooLong: 414, BadExpect: 417, HeaderTooLarge: 431, TooManyFields: 431,
		UnknownCoding: 501, ConnectRefused: 501, TraceRefused: 501, BadVersion: 505,
	}
	for f := range faultCount {
		status, ok := want[f]
		if !ok {
			status = 400
		}
		if f.Status() != status {
			t.Errorf("%s has status %d, want %d", f, f.Status(), status)
		}
	}
}

func TestHostGrammar(t *testing.T) {
	accepted := map[string]string{
		"example.com":       "example.com",
		"EXAMPLE.com":       "example.com",
		"example.com:8080":  "example.com:8080",
		"Example.COM:1":     "example.com:1",
		"h:65535":           "h:65535",
		"example.com.":      "example.com",
		"Example.com.:8443": "example.com:8443",
		"a_b-c~d.e":         "a_b-c~d.e",
		"127.0.0.1:80":      "127.0.0.1:80",
		"[::1]":             "[::1]",
		"[::1]:8080":        "[::1]:8080",
		"[2001:DB8::A]:80":  "[2001:db8::a]:80",
		"[::ffff:10.0.0.1]": "[::ffff:10.0.0.1]",
		"xn--bcher-kva.de":  "xn--bcher-kva.de",
	}
	f := func(host string) (*Request, Fault) {
		r := new(Request)
		return r, r.ParseParts([]byte("GET"), []byte("/"), []byte("HTTP/1.1"), []byte("Host: "+host+"\r\n"), &Limits{})
	}
	for host, want := range accepted {
		r, fault := f(host)
		if fault != NoFault || string(r.Host) != want {
			t.Errorf("Host %q gives %q %q, want %q", host, r.Host, fault, want)
		}
		if host == want && len(r.norm) > 0 {
			t.Errorf("Host %q was copied", host)
		}
	}
	for _, host := range []string{
		".", "..", "a..b", ".a", "a..", "a.:", "a:", "a:0", "a:00080", "a:080", "a:65536", "a:99999", "a:123456", "a:-1", "a:+1",
		"a:80:80", "a:8a", ":80", "a b", "a,b", "a/b", "a\\b", "a?b", "a#b", "a%20b", "a;b", "a'b", "a\"b", "a<b", "a*b", "(a)",
		"http://a", "b\xc3\xbccher.de", "::1", "[", "[]", "[]:80", "[::1", "[::1]80", "[::1]:", "[::1]:0", "[::1]x", "[::1%25eth0]",
		"[::1%eth0]", "[1.2.3.4]", "[v1.x]", "[::g]", "[[::1]]", "[::1].", "a[::1]", "a\tb", strings.Repeat("a", 255),
	} {
		if r, fault := f(host); fault != BadHost {
			t.Errorf("Host %q gives %q %q, want %q", host, r.Host, fault, BadHost)
		}
	}
	for _, host := range []string{"u@h", "u:p@h", "@h", "h@", "a@b@c"} {
		if _, fault := f(host); fault != Userinfo {
			t.Errorf("Host %q gives %q, want %q", host, fault, Userinfo)
		}
	}
	for host, want := range map[string]string{"h": "h", "h:80": "h", "[::1]:80": "[::1]", "[::1]": "[::1]"} {
		if r, _ := f(host); string(r.Hostname()) != want {
			t.Errorf("Hostname of %q is %q, want %q", host, r.Hostname(), want)
		}
	}
}

func TestHTTP10MayOmitHost(t *testing.T) {
	for head, want := range map[string]string{
		"GET / HTTP/1.0\r\n\r\n":                  "",
		"GET / HTTP/1.0\r\nHost:\r\n\r\n":         "",
		"GET / HTTP/1.0\r\nHost: H\r\n\r\n":       "h",
		"GET http://H/x HTTP/1.0\r\n\r\n":         "h",
		"GET http://H HTTP/1.0\r\nHost:h\r\n\r\n": "h",
	} {
		var r Request
		if n, f := r.Parse([]byte(head), testLimits); n != len(head) || string(r.Host) != want || !r.Close || r.Minor != 0 {
			t.Errorf("%q gives %d %q: host %q, close %v", head, n, f, r.Host, r.Close)
		}
		if len(r.Hostname()) != len(want) {
			t.Errorf("%q: hostname %q", head, r.Hostname())
		}
	}
}

func TestRequestsAreUnderstood(t *testing.T) {
	f := func(name, head string, check func(r *Request) bool) {
		t.Helper()
		var r Request
		n, fault := r.Parse([]byte(head+"surplus"), testLimits)
		if n != len(head) || fault != NoFault || !check(&r) {
			t.Errorf("%s: Parse gives %d of %d, %q: %s %q %q host %q length %d close %v expect %v upgrade %q",
				name, n, len(head), fault, r.Method, r.Path, r.Query, r.Host, r.Length, r.Close, r.Expect, r.Upgrade)
		}
		method, target, version, fields, _ := split(head)
		for _, fields := range [][]byte{fields, fields[:len(fields)-2]} {
			if fault := r.ParseParts(method, target, version, fields, testLimits); fault != NoFault || !check(&r) {
				t.Errorf("%s: ParseParts gives %q", name, fault)
			}
		}
		for i := range len(head) {
			if n, fault := r.Parse([]byte(head[:i]), testLimits); n != 0 || fault != NoFault {
				t.Errorf("%s: Parse of the first %d bytes gives %d, %q", name, i, n, fault)
			}
		}
	}
	f("plain GET", "GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", func(r *Request) bool {
		return r.Method == MethodGet && string(r.MethodText) == "GET" && string(r.Target) == "/a?b" && string(r.Path) == "/a" &&
			string(r.Query) == "b" && string(r.Host) == "h" && r.Minor == 1 && r.Length == 0 && !r.Close && !r.Expect && r.Upgrade == nil
	})
	f("CRLF before the request line", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", func(r *Request) bool { return r.Method == MethodGet })
	f("unknown method", "PROPFIND / HTTP/1.1\r\nHost: h\r\n\r\n", func(r *Request) bool {
		return r.Method == MethodOther && string(r.MethodText) == "PROPFIND"
	})
	f("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", func(r *Request) bool { return string(r.Path) == "*" && r.Query == nil })
	f("OPTIONS of an authority", "OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n", func(r *Request) bool { return string(r.Path) == "*" })
	f("OPTIONS of the root", "OPTIONS http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", func(r *Request) bool { return string(r.Path) == "/" })
	f("absolute form", "GET http://H:80/a HTTP/1.1\r\nHost: h:80\r\n\r\n", func(r *Request) bool {
		return string(r.Host) == "h:80" && string(r.Path) == "/a" && string(r.Hostname()) == "h"
	})
	f("absolute form with a dot", "GET http://h./a HTTP/1.1\r\nHost: h\r\n\r\n", func(r *Request) bool { return string(r.Host) == "h" })
	f("length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 123456789012345678\r\n\r\n", func(r *Request) bool {
		return r.Length == 123456789012345678
	})
	f("length with white space around", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \t007 \r\n\r\n", func(r *Request) bool { return r.Length == 7 })
	f("GET with a body", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", func(r *Request) bool { return r.Length == 5 })
	f("chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n", func(r *Request) bool { return r.Length == LengthChunked })
	f("close", "GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n", func(r *Request) bool { return r.Close })
	f("close in the second Connection", "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", func(r *Request) bool { return r.Close })
	f("HTTP/1.0", "GET / HTTP/1.0\r\nHost: h\r\n\r\n", func(r *Request) bool { return r.Close && r.Minor == 0 })
	f("HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nHost: h\r\nConnection: Keep-Alive\r\n\r\n", func(r *Request) bool { return !r.Close })
	f("HTTP/1.0 of two minds", "GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive, close\r\n\r\n", func(r *Request) bool { return r.Close })
	f("Expect", "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n", func(r *Request) bool { return r.Expect })
	f("Expect without a body", "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n", func(r *Request) bool { return !r.Expect })
	f("Expect in HTTP/1.0", "PUT / HTTP/1.0\r\nContent-Length: 5\r\nExpect: anything\r\n\r\n", func(r *Request) bool { return !r.Expect })
	f("upgrade", "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", func(r *Request) bool {
		return string(r.Upgrade) == "websocket" && !r.Close
	})
	f("connection options at the limit", "GET / HTTP/1.1\r\nHost: h\r\nConnection: "+strings.Repeat(",a", 63)+",close\r\n\r\n", func(r *Request) bool { return r.Close })
	f("upgrade that Connection does not name", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", func(r *Request) bool { return r.Upgrade == nil })
	f("upgrade in HTTP/1.0", "GET / HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", func(r *Request) bool { return r.Upgrade == nil })
	f("upgrade to nothing", "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade:\r\n\r\n", func(r *Request) bool { return r.Upgrade == nil })
	f("target at the limit", "GET /"+strings.Repeat("a", 99)+" HTTP/1.1\r\nHost: h\r\n\r\n", func(r *Request) bool { return len(r.Path) == 100 })
	f("fields at the limit", "GET / HTTP/1.1\r\nHost: h\r\n"+strings.Repeat("A: b\r\n", 19)+"\r\n", func(r *Request) bool { return r.Len() == 20 })
	f("header at the limit", "GET / HTTP/1.1\r\nHost: h\r\nA: "+strings.Repeat("a", 1000-32)+"\r\n\r\n", func(r *Request) bool { return true })
}

// What can never become an acceptable head is refused before it is complete.
func TestHopelessHeadsAreRefusedEarly(t *testing.T) {
	for _, c := range []struct {
		name, begin string
		want        Fault
	}{
		{"TLS handshake", "\x16\x03\x01", BadMethod},
		{"endless method", strings.Repeat("A", 34), BadMethod},
		{"method without end", "GE\tT", BadMethod},
		{"white space first", " GET", BadMethod},
		{"CR first", "\rGET", BareCR},
		{"two empty lines", "\r\n\r\n", BadRequestLine},
		{"endless target", "GET /" + strings.Repeat("a", 120), TargetTooLong},
		{"endless line", "GET / " + strings.Repeat("a", 1000), TargetTooLong},
		{"endless fields", "GET / HTTP/1.1\r\nHost: h\r\nA: " + strings.Repeat("a", 1000), HeaderTooLarge},
		{"bad field", "GET / HTTP/1.1\r\nHost : h", SpaceBeforeColon},
	} {
		var r Request
		if n, f := r.Parse([]byte(c.begin), testLimits); n != 0 || f != c.want {
			t.Errorf("%s: %d, %q, want %q", c.name, n, f, c.want)
		}
	}
	var r Request
	if _, f := r.Parse([]byte("GET /"+strings.Repeat("a", 1000)), &Limits{MaxHeader: 1000}); f != HeaderTooLarge {
		t.Errorf("request line beyond the header's limit: %q", f)
	}
	if _, f := r.Parse([]byte("GET /"+strings.Repeat("a", 100000)), &Limits{}); f != NoFault {
		t.Errorf("without limits: %q", f)
	}
}

func TestPipelinedHeadsAreReadOneByOne(t *testing.T) {
	buf := []byte("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
	var r Request
	for _, path := range []string{"/1", "/2"} {
		n, f := r.Parse(buf, testLimits)
		if f != NoFault || string(r.Path) != path {
			t.Fatalf("%q %q", r.Path, f)
		}
		buf = buf[n:]
	}
	if len(buf) != 0 {
		t.Errorf("%q is left", buf)
	}
}

func TestResetForgetsEverything(t *testing.T) {
	head := "POST /%41?\" HTTP/1.0\r\nHost: H\r\nContent-Length: 5\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
	var r Request
	if _, f := r.Parse([]byte(head), testLimits); f != NoFault {
		t.Fatal(f)
	}
	r.Reset()
	if r.Method != 0 || r.MethodText != nil || r.Target != nil || r.Host != nil || r.Path != nil || r.Query != nil ||
		r.Length != 0 || r.Close || r.Upgrade != nil || r.Len() != 0 || r.raw != nil {
		t.Errorf("%+v", r)
	}
}

// rewrite sends an accepted request on: request line anew, fields as they are.
func rewrite(r *Request) []byte {
	head := append([]byte(nil), r.MethodText...)
	head = append(append(head, ' '), r.Path...)
	if r.Query != nil {
		head = append(append(head, '?'), r.Query...)
	}
	head = append(head, " HTTP/1."...)
	head = append(head, byte('0'+r.Minor))
	head = append(head, "\r\n"...)
	if r.Host != nil {
		r.Set("Host", r.Host)
	}
	return append(r.AppendTo(head), "\r\n"...)
}

func FuzzRequest(f *testing.F) {
	for _, c := range requestFaults {
		f.Add([]byte(c.head), uint8(0))
	}
	for _, target := range []string{"/a/../b?c", "http://H.:80?x|", "*", "/%2f%2e.", "/a/..//b"} {
		f.Add([]byte("OPTIONS "+target+" HTTP/1.1\r\nHost: h.:80\r\nConnection: close, upgrade\r\nUpgrade: a\r\n\r\nmore"), uint8(1))
		f.Add([]byte("GET "+target+" HTTP/1.0\r\nA:b \t\r\nExpect: x\r\n\r\n"), uint8(2))
	}
	same := func(a, b *Request) bool {
		return a.Method == b.Method && bytes.Equal(a.MethodText, b.MethodText) && a.Minor == b.Minor &&
			bytes.Equal(a.Host, b.Host) && bytes.Equal(a.Path, b.Path) && bytes.Equal(a.Query, b.Query) &&
			(a.Query == nil) == (b.Query == nil) && a.Length == b.Length && a.Close == b.Close && a.Expect == b.Expect &&
			bytes.Equal(a.Upgrade, b.Upgrade)
	}
	f.Fuzz(func(t *testing.T, head []byte, rule uint8) {
		limits := &Limits{MaxTarget: 200, MaxHeader: 2000, MaxFields: 20, EncodedSlash: SlashRule(rule % 3)}
		var whole, parts, again Request
		// Whatever parts another parser found: what is accepted can be sent on.
		if method, target, version, fields, ok := split(string(head)); ok &&
			parts.ParseParts(method, target, version, fields, limits) == NoFault {
			sent := rewrite(&parts)
			if n, fault := again.Parse(sent, &Limits{EncodedSlash: limits.EncodedSlash}); n != len(sent) || fault != NoFault || !same(&parts, &again) {
				t.Errorf("parts of %q become %q: %d, %s, %+v, %+v", head, sent, n, fault, parts, again)
			}
		}
		n, fault := whole.Parse(head, limits)
		if n < 0 || n > len(head) || n > 0 && fault != NoFault {
			t.Fatalf("Parse gives %d of %d, %s", n, len(head), fault)
		}
		if n == 0 {
			if fault == NoFault && bytes.Contains(head, []byte("\r\n\r\n")) && !bytes.HasPrefix(head, []byte("\r\n\r\n")) {
				t.Errorf("Parse waits for more than %q", head)
			}
			return
		}
		for i := range n {
			if n, fault := again.Parse(head[:i], limits); n != 0 || fault != NoFault {
				t.Errorf("the first %d bytes of %q give %d, %q", i, head, n, fault)
			}
		}
		if method, target, version, fields, ok := split(string(head[:n])); !ok {
			t.Errorf("Parse accepts %q", head[:n])
		} else if fault := parts.ParseParts(method, target, version, fields, limits); fault != NoFault || !same(&whole, &parts) {
			t.Errorf("Parse accepts %q, ParseParts: %s, %+v, %+v", head[:n], fault, whole, parts)
		}
		if len(whole.Path) == 0 || whole.Path[0] != '/' && string(whole.Path) != "*" || bytes.HasPrefix(whole.Path, []byte("//")) {
			t.Errorf("path %q", whole.Path)
		}
		sent := rewrite(&whole)
		limits.MaxHeader, limits.MaxTarget = 0, 0 // escapes take more room
		limits.MaxFields++                        // and Host may be new
		if n, fault := again.Parse(sent, limits); n != len(sent) || fault != NoFault || !same(&whole, &again) {
			t.Errorf("%q becomes %q: %d, %s, %+v, %+v", head, sent, n, fault, whole, again)
		}
	})
}
