package origin

import (
	"fmt"
	"strings"
)

// Reply answers each request of each connection with the same bytes.
func Reply(response string) Script {
	return func(c *Conn) {
		for {
			c.Read()
			c.Write(response)
		}
	}
}

// Echo answers each request with the request line, fields and body that it
// received, as the body of a 200; to HEAD without it.
func Echo(c *Conn) {
	for {
		r := c.Read()
		body := r.Head + r.Body
		if r.Method == "HEAD" {
			body = ""
		}
		c.Write(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: message/http\r\nContent-Length: %d\r\n\r\n%s", len(r.Head)+len(r.Body), body))
	}
}

// OK is a 200 response with this body and a Content-Length.
func OK(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// Chunked is a 200 response with this body in these chunks.
func Chunked(chunks ...string) string {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, c := range chunks {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(c), c)
	}
	b.WriteString("0\r\n\r\n")
	return b.String()
}
