package wire

import "bytes"

// Response is a parsed response head. Its slices point into the parsed bytes.
type Response struct {
	Header
	Status int    // 100 to 599
	Minor  int    // HTTP/1.Minor: 0 or 1
	Reason []byte // reason phrase as received, may be empty
	Length int64  // bytes of the body that follow; 0 without one; LengthChunked; LengthUntilClose
	// Declared is the Content-Length field's value, -1 without one: for HEAD
	// and 304 it describes what a GET would have sent while Length is 0.
	Declared int64
	Close    bool // the connection can't be used again after this response
}

// Reset forgets the head and keeps the capacities.
func (r *Response) Reset() {
	r.Header.Reset()
	*r = Response{Header: r.Header}
}

// Parse reads a head from buf: the answer to a request with this method. It
// returns the number of bytes of the head, blank line included; 0 with NoFault
// when buf does not hold a whole head yet (the caller bounds its buffer).
// Strict, like requests: a fault means that the response must not be used.
// The one liberty is a status line without reason phrase and the space before
// it, as some origins send it: it cannot be read in two ways.
// After 101 Length is 0 and what follows belongs to the tunnel.
func (r *Response) Parse(buf []byte, method Method, maxFields int) (n int, f Fault) {
	r.Reset()
	end := bytes.IndexByte(buf, '\n')
	if end < 0 {
		return 0, answerFault(buf)
	}
	if end == 0 || buf[end-1] != '\r' {
		return 0, BareLF
	}
	if f = r.statusLine(buf[:end-1]); f != NoFault {
		return 0, f
	}
	n, f = r.index(buf[end+1:], maxFields, true)
	if n == 0 || f != NoFault {
		return 0, f
	}
	if f = r.judge(method); f != NoFault {
		return 0, f
	}
	return end + 1 + n, NoFault
}

// answerFault finds out early that what came is not HTTP.
func answerFault(buf []byte) Fault {
	const begin = "HTTP/1."
	for i := 0; i < len(buf) && i < len(begin); i++ {
		if buf[i] != begin[i] {
			return BadStatusLine
		}
	}
	return NoFault
}

func (r *Response) statusLine(line []byte) (f Fault) {
	end := bytes.IndexByte(line, ' ')
	if end < 0 {
		return BadStatusLine
	}
	if r.Minor, f = version(line[:end], BadStatusLine); f != NoFault {
		return f
	}
	line = line[end+1:]
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' {
		return BadStatusLine
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return BadStatusLine
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 || r.Status > 599 {
		return BadStatusLine
	}
	if len(line) == 3 {
		return NoFault
	}
	r.Reason = line[4:len(line):len(line)]
	for _, c := range r.Reason {
		if c == '\r' {
			return BareCR
		}
		if c < 0x20 && c != '\t' || c == 0x7f {
			return ControlByte
		}
	}
	return NoFault
}

// judge decides what follows the head (RFC 9112 section 6.3).
func (r *Response) judge(method Method) (f Fault) {
	if r.Length, r.Declared, f = r.framing(r.Minor); f != NoFault {
		return f
	}
	if r.Close, _, f = r.connection(r.Minor); f != NoFault {
		return f
	}
	switch {
	case r.Status < 200 || r.Status == 204:
		// What announces a body here may be about to send one.
		r.Close = r.Close || r.Status == 101 || r.Length > 0 || r.Length == LengthChunked
		r.Length = 0
	case r.Status == 304 || method == MethodHead:
		r.Length = 0
	case r.Length == LengthUntilClose:
		r.Close = true
	}
	return NoFault
}
