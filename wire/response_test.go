package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestResponsesAreUnderstood(t *testing.T) {
	f := func(name, head string, method Method, check func(r *Response) bool) {
		t.Helper()
		var r Response
		n, fault := r.Parse([]byte(head+"surplus"), method, 20)
		if n != len(head) || fault != NoFault || !check(&r) {
			t.Errorf("%s: %d of %d, %q: status %d reason %q length %d declared %d close %v",
				name, n, len(head), fault, r.Status, r.Reason, r.Length, r.Declared, r.Close)
		}
		for i := range len(head) {
			if n, fault := r.Parse([]byte(head[:i]), method, 20); n != 0 || fault != NoFault {
				t.Errorf("%s: the first %d bytes give %d, %q", name, i, n, fault)
			}
		}
	}
	is := func(status int, length, declared int64, closing bool) func(r *Response) bool {
		return func(r *Response) bool {
			return r.Status == status && r.Length == length && r.Declared == declared && r.Close == closing
		}
	}
	f("length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", MethodGet, is(200, 5, 5, false))
	f("empty body", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", MethodGet, is(200, 0, 0, false))
	f("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", MethodGet, is(200, LengthChunked, -1, false))
	f("until close", "HTTP/1.1 200 OK\r\n\r\n", MethodGet, is(200, LengthUntilClose, -1, true))
	f("until close in spite of keep-alive", "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", MethodGet, is(200, LengthUntilClose, -1, true))
	f("close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n", MethodGet, is(200, 5, 5, true))
	f("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", MethodGet, is(200, 5, 5, true))
	f("HTTP/1.0 keep-alive", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n", MethodGet, is(200, 5, 5, false))
	f("HEAD with length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", MethodHead, is(200, 0, 5, false))
	f("HEAD with coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", MethodHead, is(200, 0, -1, false))
	f("HEAD without framing", "HTTP/1.1 200 OK\r\n\r\n", MethodHead, is(200, 0, -1, false))
	f("304 with length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", MethodGet, is(304, 0, 5, false))
	f("304 without framing", "HTTP/1.1 304 Not Modified\r\n\r\n", MethodGet, is(304, 0, -1, false))
	f("204", "HTTP/1.1 204 No Content\r\n\r\n", MethodGet, is(204, 0, -1, false))
	f("204 with length 0", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", MethodGet, is(204, 0, 0, false))
	f("204 that announces a body", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", MethodGet, is(204, 0, 5, true))
	f("204 that announces chunks", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", MethodGet, is(204, 0, -1, true))
	f("100", "HTTP/1.1 100 Continue\r\n\r\n", MethodPost, is(100, 0, -1, false))
	f("103", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", MethodGet, is(103, 0, -1, false))
	f("101", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", MethodGet, is(101, 0, -1, true))
	f("unregistered status", "HTTP/1.1 599 Whatever\r\nContent-Length: 0\r\n\r\n", MethodGet, is(599, 0, 0, false))
	f("no reason", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", MethodGet, func(r *Response) bool { return r.Status == 200 && len(r.Reason) == 0 })
	f("no reason and no space", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", MethodGet, func(r *Response) bool { return r.Status == 200 && len(r.Reason) == 0 })
	f("reason with text", "HTTP/1.1 404 Nicht\tgefunden \xfc\r\nContent-Length: 0\r\n\r\n", MethodGet, func(r *Response) bool {
		return string(r.Reason) == "Nicht\tgefunden \xfc"
	})
}

var responseFaults = []struct {
	name, head string
	want       Fault
}{
	{"HTTP/0.9", "<html>", BadStatusLine},
	{"empty line first", "\r\nHTTP/1.1 200 OK\r\n\r\n", BadStatusLine},
	{"other protocol", "ICY 200 OK\r\n\r\n", BadStatusLine},
	{"version in lower case", "http/1.1 200 OK\r\n\r\n", BadStatusLine},
	{"no status", "HTTP/1.1\r\n\r\n", BadStatusLine},
	{"no status but a space", "HTTP/1.1 \r\n\r\n", BadStatusLine},
	{"status 000", "HTTP/1.1 000 Zero\r\n\r\n", BadStatusLine},
	{"status 099", "HTTP/1.1 099 Low\r\n\r\n", BadStatusLine},
	{"status 600", "HTTP/1.1 600 High\r\n\r\n", BadStatusLine},
	{"status 999", "HTTP/1.1 999 High\r\n\r\n", BadStatusLine},
	{"status of two digits", "HTTP/1.1 20 OK\r\n\r\n", BadStatusLine},
	{"status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", BadStatusLine},
	{"status with sign", "HTTP/1.1 +20 OK\r\n\r\n", BadStatusLine},
	{"status in hexadecimal", "HTTP/1.1 2A0 OK\r\n\r\n", BadStatusLine},
	{"two spaces before the status", "HTTP/1.1  200 OK\r\n\r\n", BadStatusLine},
	{"tab after the status", "HTTP/1.1 200\tOK\r\n\r\n", BadStatusLine},
	{"HTTP/2", "HTTP/2 200 OK\r\n\r\n", BadVersion},
	{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", BadVersion},
	{"status line ended by LF", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", BareLF},
	{"CR in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", BareCR},
	{"NUL in the reason", "HTTP/1.1 200 O\x00K\r\n\r\n", ControlByte},
	{"field ended by LF", "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 0\r\n\r\n", BareLF},
	{"blank line of LF", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n", BareLF},
	{"fold", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", ObsoleteFold},
	{"space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", SpaceBeforeColon},
	{"field without colon", "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", MissingColon},
	{"name with a space", "HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", BadFieldName},
	{"NUL in a value", "HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n", ControlByte},
	{"too many fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 21) + "\r\n", TooManyFields},
	{"too many connection options", "HTTP/1.1 200 OK\r\nConnection: " + strings.Repeat("a,", 65) + "\r\n\r\n", TooManyFields},
	{"length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", LengthAndCoding},
	{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", DuplicateContentLength},
	{"two equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", DuplicateContentLength},
	{"list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", BadContentLength},
	{"negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", BadContentLength},
	{"gzip, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", UnknownCoding},
	{"identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", UnknownCoding},
	{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CodingInHTTP10},
	{"conflict in a 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", LengthAndCoding},
}

func TestResponsesAreRefused(t *testing.T) {
	for _, c := range responseFaults {
		for _, method := range []Method{MethodGet, MethodHead} {
			var r Response
			if n, f := r.Parse([]byte(c.head), method, 20); n != 0 || f != c.want {
				t.Errorf("%s: %d, %q, want %q", c.name, n, f, c.want)
			}
		}
	}
}

func TestStatusLine(t *testing.T) {
	for status, want := range map[int]string{
		100: "HTTP/1.1 100 Continue\r\n", 200: "HTTP/1.1 200 OK\r\n", 204: "HTTP/1.1 204 No Content\r\n", 226: "HTTP/1.1 226 IM Used\r\n",
		308: "HTTP/1.1 308 Permanent Redirect\r\n", 404: "HTTP/1.1 404 Not Found\r\n", 417: "HTTP/1.1 417 Expectation Failed\r\n",
		431: "HTTP/1.1 431 Request Header Fields Too Large\r\n", 451: "HTTP/1.1 451 Unavailable For Legal Reasons\r\n",
		502: "HTTP/1.1 502 Bad Gateway\r\n", 511: "HTTP/1.1 511 Network Authentication Required\r\n",
		299: "HTTP/1.1 299 \r\n", 999: "HTTP/1.1 999 \r\n",
	} {
		if got := string(AppendStatusLine(nil, status)); got != want {
			t.Errorf("status %d gives %q, want %q", status, got, want)
		}
	}
	if StatusText(0) != "" || StatusText(-1) != "" || StatusText(1000) != "" {
		t.Error("text for what is no status")
	}
}

func FuzzResponse(f *testing.F) {
	for _, c := range responseFaults {
		f.Add([]byte(c.head), uint8(MethodGet))
	}
	f.Add([]byte("HTTP/1.1 200\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"), uint8(MethodHead))
	f.Add([]byte("HTTP/1.0 304 x\r\nA: \t b \t\r\nConnection: keep-alive\r\n\r\n"), uint8(MethodGet))
	f.Add([]byte("HTTP/1.1 204 \r\nTransfer-Encoding: chunked\r\n\r\n"), uint8(MethodPost))
	f.Fuzz(func(t *testing.T, head []byte, m uint8) {
		method := Method(m) % MethodCount
		var r, again Response
		n, fault := r.Parse(head, method, 20)
		if n < 0 || n > len(head) || n > 0 && fault != NoFault {
			t.Fatalf("Parse gives %d of %d, %s", n, len(head), fault)
		}
		if n == 0 {
			if fault == NoFault && bytes.Contains(head, []byte("\r\n\r\n")) {
				t.Errorf("Parse waits for more than %q", head)
			}
			return
		}
		for i := range n {
			if n, fault := again.Parse(head[:i], method, 20); n != 0 || fault != NoFault {
				t.Errorf("the first %d bytes of %q give %d, %q", i, head, n, fault)
			}
		}
		if r.Status < 100 || r.Status > 599 || r.Length < LengthUntilClose || r.Length == LengthUntilClose && !r.Close {
			t.Errorf("%q gives %+v", head, r)
		}
		if (method == MethodHead || r.Status < 200 || r.Status == 204 || r.Status == 304) && r.Length != 0 {
			t.Errorf("%q has a body of %d", head, r.Length)
		}
		sent := append([]byte("HTTP/1."), byte('0'+r.Minor), ' ')
		sent = append(sent, byte('0'+r.Status/100), byte('0'+r.Status/10%10), byte('0'+r.Status%10), ' ')
		sent = append(append(sent, r.Reason...), "\r\n"...)
		sent = append(r.AppendTo(sent), "\r\n"...)
		if n, fault := again.Parse(sent, method, 20); n != len(sent) || fault != NoFault || again.Length != r.Length ||
			again.Declared != r.Declared || again.Close != r.Close || again.Len() != r.Len() {
			t.Errorf("%q becomes %q: %s, %+v, %+v", head, sent, fault, r, again)
		}
	})
}
