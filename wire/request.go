package wire

import (
	"bytes"

	"gateway/internal/ascii"
)

// Limits bound what the parser accepts of a head; zero means no bound.
type Limits struct {
	MaxTarget int // bytes of the request target
	MaxHeader int // bytes of the whole head
	MaxFields int // field lines
	// EncodedSlash says what a percent-encoded slash in the path becomes.
	EncodedSlash SlashRule
}

// SlashRule says what happens to %2F in a path.
type SlashRule uint8

const (
	SlashKeep   SlashRule = iota // stays %2F, is no separator
	SlashDecode                  // becomes a separator, before dot segments are removed
	SlashReject                  // 400
)

// Lengths of a body that are not a number of bytes.
const (
	LengthChunked    int64 = -1 // chunked transfer coding
	LengthUntilClose int64 = -2 // responses only: ended by the close of the connection
)

// maxMethod bounds the bytes of a method; the longest registered one has 17.
const maxMethod = 32

// Request is a parsed request head. Its slices point into the parsed bytes or
// into the Request itself and are valid until the next Parse or Reset.
type Request struct {
	Header
	Method     Method
	MethodText []byte // as received
	Minor      int    // HTTP/1.Minor: 0 or 1
	Target     []byte // as received
	// Host is the authority to route by and to forward: from the absolute
	// form or the Host field, validated, lower case, without a trailing dot of
	// the name, with the port if one was given; empty only in HTTP/1.0. The
	// field itself stays as it was received.
	Host []byte
	// Path is the normalised path, never empty, always with a leading slash
	// and never with two ("*" for OPTIONS *): unreserved characters decoded,
	// other escapes in upper case, bytes that no URI may contain encoded, dot
	// segments removed (RFC 3986 section 6.2.2; climbing above the root is
	// AboveRoot).
	Path []byte
	// Query is what follows the first "?", byte for byte, nil when there is no
	// "?"; bytes that no URI may contain are percent-encoded.
	Query   []byte
	Length  int64  // bytes of the body; 0 without one; LengthChunked
	Close   bool   // the client asked for, or its version implies, a close after the response
	Expect  bool   // Expect: 100-continue, and there is a body to wait with
	Upgrade []byte // value of Upgrade when Connection names it (HTTP/1.1 only), else nil
	norm    []byte // storage for what had to be rewritten; owned
}

// Reset forgets the head and keeps the capacities.
func (r *Request) Reset() {
	r.Header.Reset()
	norm := r.norm[:0]
	if cap(norm) > keptBytes {
		norm = nil
	}
	*r = Request{Header: r.Header, norm: norm}
}

// CopyFrom makes r an independent copy of o, which may be released afterwards.
// Deleted fields are not there any more. It allocates.
func (r *Request) CopyFrom(o *Request) {
	r.Reset()
	r.Header.CopyFrom(&o.Header)
	norm := make([]byte, 0, len(o.MethodText)+len(o.Target)+len(o.Host)+len(o.Path)+len(o.Query)+len(o.Upgrade))
	copied := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		at := len(norm)
		norm = append(norm, b...)
		return norm[at:len(norm):len(norm)]
	}
	header := r.Header
	*r = *o
	r.Header = header
	r.MethodText, r.Target, r.Host = copied(o.MethodText), copied(o.Target), copied(o.Host)
	r.Path, r.Query, r.Upgrade = copied(o.Path), copied(o.Query), copied(o.Upgrade)
	r.norm = norm
}

// Parse reads a head from buf. It returns the number of bytes of the head,
// blank line included; 0 with NoFault when buf does not hold a whole head yet.
// A single empty line (CRLF) before the request line is skipped (RFC 9112
// section 2.2) and counted. After a fault, or before a head is whole, the
// fields of r mean nothing, except that those of the request line are set as
// far as they were understood. Parse begins anew with each call: MaxHeader and
// the caller's deadline bound what a client that sends bytewise can cost.
func (r *Request) Parse(buf []byte, l *Limits) (n int, f Fault) {
	r.Reset()
	at := 0
	if len(buf) >= 2 && buf[0] == '\r' && buf[1] == '\n' {
		at = 2
	}
	end := bytes.IndexByte(buf[at:], '\n') + at
	if end < at {
		return 0, beginFault(buf, at, l)
	}
	if end == at || buf[end-1] != '\r' {
		return 0, BareLF
	}
	line := buf[at : end-1]
	i := 0
	for i < len(line) && ascii.Token[line[i]] {
		i++
	}
	if i == len(line) {
		return 0, BadRequestLine
	}
	if line[i] != ' ' {
		return 0, BadMethod
	}
	method, rest := line[:i:i], line[i+1:]
	i = bytes.IndexByte(rest, ' ')
	if i < 0 {
		return 0, BadRequestLine // HTTP/0.9
	}
	if f := r.begin(method, rest[:i:i], rest[i+1:], l); f != NoFault {
		return 0, f
	}
	n, f = r.index(buf[end+1:], l.MaxFields, true)
	if f != NoFault {
		return 0, f
	}
	if n > 0 {
		n += end + 1
	}
	if l.MaxHeader > 0 && (n > l.MaxHeader || n == 0 && len(buf) >= l.MaxHeader) {
		return 0, HeaderTooLarge
	}
	if n == 0 {
		return 0, NoFault
	}
	if f := r.judge(); f != NoFault {
		return 0, f
	}
	return n, NoFault
}

// beginFault says what is wrong already with a request line that is not whole
// and begins at buf[at]: what cannot become one need not be waited for.
func beginFault(buf []byte, at int, l *Limits) Fault {
	line := buf[at:]
	if len(line) == 0 || line[0] == '\r' && len(line) == 1 {
		return NoFault
	}
	if line[0] == '\r' {
		return BareCR
	}
	i := 0
	for i < len(line) && i <= maxMethod && ascii.Token[line[i]] {
		i++
	}
	if i < len(line) && (i == 0 || i > maxMethod || line[i] != ' ') {
		return BadMethod
	}
	if l.MaxTarget > 0 && len(line)-i > l.MaxTarget+len("  HTTP/1.1\r") {
		return TargetTooLong
	}
	if l.MaxHeader > 0 && len(buf) >= l.MaxHeader {
		return HeaderTooLarge
	}
	return NoFault
}

// ParseParts is Parse for a head that another parser has split already: the
// method, the target and the version ("HTTP/1.1") of the request line, and the
// field lines with or without the final blank line.
func (r *Request) ParseParts(method, target, version, fields []byte, l *Limits) Fault {
	r.Reset()
	if n := len(fields); n == 2 && string(fields) == "\r\n" || n >= 4 && string(fields[n-4:]) == "\r\n\r\n" {
		fields = fields[:n-2]
	}
	if f := r.begin(method, target, version, l); f != NoFault {
		return f
	}
	if _, f := r.index(fields, l.MaxFields, false); f != NoFault {
		return f
	}
	if l.MaxHeader > 0 && len(method)+len(target)+len(version)+len(fields)+len("  \r\n\r\n") > l.MaxHeader {
		return HeaderTooLarge
	}
	return r.judge()
}

// begin reads the parts of the request line.
func (r *Request) begin(method, target, protocol []byte, l *Limits) (f Fault) {
	if r.Minor, f = version(protocol, BadRequestLine); f != NoFault {
		return f
	}
	if len(method) > maxMethod || !ascii.IsToken(method) {
		return BadMethod
	}
	r.Method, r.MethodText = ParseMethod(method), method
	switch r.Method {
	case MethodConnect:
		return ConnectRefused
	case MethodTrace:
		return TraceRefused
	}
	if l.MaxTarget > 0 && len(target) > l.MaxTarget {
		return TargetTooLong
	}
	r.Target = target
	if len(target) == 0 {
		return BadRequestLine
	}
	switch target[0] {
	case '/':
		return r.splitTarget(target, l.EncodedSlash)
	case '*':
		if len(target) > 1 || r.Method != MethodOptions {
			return BadTarget
		}
		r.Path = target
		return NoFault
	}
	return r.absolute(target, l.EncodedSlash)
}

// absolute reads a target in absolute form (RFC 9112 section 3.2.2), whose
// authority goes before the Host field. Its scheme says nothing about how the
// request came here and is not looked at again.
func (r *Request) absolute(target []byte, rule SlashRule) (f Fault) {
	var rest []byte
	switch {
	case len(target) > 7 && ascii.EqualFold(target[:7], "http://"):
		rest = target[7:]
	case len(target) > 8 && ascii.EqualFold(target[:8], "https://"):
		rest = target[8:]
	default:
		for _, c := range target {
			if class := targetClass[c]; class == refuse || class == hash {
				return targetFault(c)
			}
		}
		return BadTarget
	}
	end := 0
	for end < len(rest) && rest[end] != '/' && rest[end] != '?' && rest[end] != '#' {
		if targetClass[rest[end]] == refuse {
			return targetFault(rest[end])
		}
		end++
	}
	if r.Host, f = r.authority(rest[:end:end]); f != NoFault {
		return f
	}
	switch rest = rest[end:]; {
	case len(rest) == 0:
		r.Path = view("/")
		if r.Method == MethodOptions {
			r.Path = view("*") // RFC 9112 section 3.2.4
		}
		return NoFault
	case rest[0] == '/':
		return r.splitTarget(rest, rule)
	}
	// A query (or a fragment) follows the authority at once: the path is "/".
	at := len(r.norm)
	r.norm = append(append(r.norm, '/'), rest...)
	return r.splitTarget(r.norm[at:len(r.norm):len(r.norm)], rule)
}

// judge checks what the fields mean together.
func (r *Request) judge() (f Fault) {
	if f = r.judgeHost(); f != NoFault {
		return f
	}
	if r.Length, _, f = r.framing(r.Minor); f != NoFault {
		return f
	}
	if r.Length == LengthUntilClose {
		r.Length = 0
	}
	if r.Minor == 1 { // in HTTP/1.0 it is ignored, RFC 9110 section 10.1.1
		for i := r.Next(Expect, 0); i >= 0; i = r.Next(Expect, i+1) {
			if !ascii.EqualFold(r.value(&r.fields[i]), "100-continue") {
				return BadExpect
			}
			r.Expect = r.Length != 0
		}
	}
	var upgrade bool
	if r.Close, upgrade, f = r.connection(r.Minor); f != NoFault {
		return f
	}
	return r.judgeUpgrade(upgrade)
}

func (r *Request) judgeHost() Fault {
	i := r.Next(Host, 0)
	if i < 0 {
		if r.Minor == 1 {
			return MissingHost
		}
		return NoFault
	}
	if r.Next(Host, i+1) >= 0 {
		return DuplicateHost
	}
	value := r.value(&r.fields[i])
	if len(value) == 0 && r.Minor == 0 && r.Host == nil {
		return NoFault
	}
	host, f := r.authority(value)
	if f != NoFault {
		return f
	}
	// Both in normal form; a default port is not made up for the side that
	// left it out (RFC 9112 section 3.2 wants them identical).
	if r.Host != nil && !bytes.Equal(r.Host, host) {
		return HostMismatch
	}
	r.Host = host
	return NoFault
}

// judgeUpgrade refuses changes to other versions of HTTP, whether Connection
// names them or not: behind one, nothing that is said here about requests
// would hold.
func (r *Request) judgeUpgrade(named bool) Fault {
	if r.Header.Has(HTTP2Settings) {
		return UpgradeRefused
	}
	for i := r.Next(Upgrade, 0); i >= 0; i = r.Next(Upgrade, i+1) {
		list := r.value(&r.fields[i])
		if named && r.Upgrade == nil && len(list) > 0 {
			r.Upgrade = list
		}
		for {
			var protocol []byte
			if protocol, list = cutElement(list); len(protocol) == 0 {
				break
			}
			if hasPrefixFold(protocol, "h2") || hasPrefixFold(protocol, "http/") {
				return UpgradeRefused
			}
		}
	}
	return NoFault
}

func hasPrefixFold(s []byte, prefix string) bool {
	return len(s) >= len(prefix) && ascii.EqualFold(s[:len(prefix)], prefix)
}
