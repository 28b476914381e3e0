package listener

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"time"

	"github.com/valyala/fasthttp"

	"gateway/exchange"
	"gateway/wire"
)

// newServer is a fasthttp server that reads heads of at most maxHeader bytes.
// It sees no bodies, sets no deadlines and answers nothing that anybody
// receives; its defaults are switched off lest they cost something.
func newServer(maxHeader int, log *slog.Logger) *fasthttp.Server {
	return &fasthttp.Server{
		Handler:                       handle,
		ErrorHandler:                  refuse,
		HeaderReceived:                hideBody,
		ReadBufferSize:                maxHeader,
		WriteBufferSize:               256, // of what feed.Write discards
		Concurrency:                   math.MaxInt32,
		DisableHeaderNamesNormalizing: true,
		DisablePreParseMultipartForm:  true,
		NoDefaultServerHeader:         true,
		NoDefaultDate:                 true,
		NoDefaultContentType:          true,
		LazyRequestTime:               true,
		CloseOnShutdown:               true,
		SecureErrorLogMessage:         true,
		Logger:                        quiet{log},
	}
}

// hideBody makes fasthttp believe that no request has a body. It would wait for
// the body's first bytes before it calls the handler, which could then refuse
// nothing early, and decode it less strictly than wire does.
func hideBody(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if n := h.ContentLength(); n > 0 || n == -1 {
		h.SetContentLength(0)
	}
	return fasthttp.RequestConfig{}
}

// handle is called for each head that fasthttp accepts.
func handle(ctx *fasthttp.RequestCtx) {
	c := ctx.Conn().(*feed).c
	c.serve(exchange.Done)
	if c.last {
		ctx.SetConnectionClose()
	}
}

// refuse is called when fasthttp could not read a head or did not like it. The
// connection ends then. A connection that closes, or is idle for too long,
// without a byte of a request is not an exchange.
func refuse(ctx *fasthttp.RequestCtx, err error) {
	c := ctx.Conn().(*feed).c
	if len(c.head) == 0 {
		return
	}
	c.last = true
	switch {
	case c.readErr == nil, c.readErr == errMalformed:
		c.serve(exchange.BadRequest)
	case errors.Is(c.readErr, os.ErrDeadlineExceeded):
		c.serve(exchange.ClientSlow)
	default:
		c.serve(exchange.ClientLeft)
	}
}

// incomplete finds out why a head that does not end has been refused.
func (c *Conn) incomplete(x *exchange.Exchange, l *wire.Limits) wire.Fault {
	if c.complete {
		return wire.BadRequestLine // nothing but empty lines
	}
	line := bytes.IndexByte(c.head, '\n')
	switch {
	case len(c.head) >= c.room && line < 0:
		return wire.TargetTooLong
	case len(c.head) >= c.room:
		return wire.HeaderTooLarge
	case line < 0:
		return wire.BadRequestLine
	}
	// fasthttp refuses a request line as soon as it is there. Ask our parser
	// what is wrong with it; if nothing is but the missing fields, then a blank
	// line with a bare LF has ended the head for fasthttp.
	_, fault := x.Request.Parse(append(bytes.Clone(c.head[:line+1]), "\r\n"...), l)
	switch {
	case c.readErr != nil:
		return wire.BadRequestLine
	case fault == wire.NoFault || fault == wire.MissingHost:
		return wire.BareLF
	}
	return fault
}

// quiet is where fasthttp's own messages go.
type quiet struct{ log *slog.Logger }

// Printf implements fasthttp.Logger.
func (q quiet) Printf(format string, args ...any) {
	if q.log.Enabled(context.Background(), slog.LevelDebug) {
		q.log.Debug("fasthttp: " + fmt.Sprintf(format, args...))
	}
}

// feed is a connection as fasthttp sees it: heads come out, whatever is put in
// is discarded, and its end is nobody's end.
type feed struct{ c *Conn }

// Read gives the bytes of one head, never more. It takes for granted that
// fasthttp reads with a bufio.Reader that is empty before each head: so p
// is the same memory as in the last call, further on, until the head is
// complete, and head is the whole of it in one piece.
func (f *feed) Read(p []byte) (int, error) {
	c := f.c
	if c.last {
		return 0, io.EOF
	}
	if c.complete {
		return 0, io.ErrUnexpectedEOF // fasthttp saw no head where we saw its end
	}
	n := 0
	if len(c.rest) > 0 {
		n = len(c.rest)
		if at := endOfHead(c.rest, 0); at > 0 {
			n = at
		}
		n = copy(p, c.rest[:n])
		c.keepRest(c.rest[n:])
	} else {
		var err error
		if n, err = c.receive(p); err != nil {
			c.readErr = err
			return 0, err
		}
	}
	seen := len(c.head)
	if seen == 0 {
		c.head = p[:n]
	} else {
		c.head = c.head[:seen+n]
	}
	if at := endOfHead(c.head, seen); at > 0 {
		c.complete = true
		if at < seen+n {
			c.keepRest(c.head[at:])
			c.head, n = c.head[:at], at-seen
		}
		// Our parser goes first: fasthttp removes folds from its buffer.
		c.parse()
	} else if malformed(c.head, seen) {
		// Such a head may never end as we understand it; do not wait for that.
		c.parse()
		c.readErr = errMalformed
		return n, errMalformed
	}
	return n, nil
}

var errMalformed = errors.New("malformed head")

// malformed reports whether a line of b ends without CR or is continued on the
// next one. The first seen bytes have been looked at before.
func malformed(b []byte, seen int) bool {
	for at := max(seen-1, 0); at < len(b); at++ {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return false
		}
		at += i
		if at == 0 || b[at-1] != '\r' || at+1 < len(b) && (b[at+1] == ' ' || b[at+1] == '\t') {
			return true
		}
	}
	return false
}

// Write discards what fasthttp wants to answer: the exchange has answered.
func (f *feed) Write(p []byte) (int, error) { return len(p), nil }

// Close does nothing: fasthttp is done with the connection, we are not.
func (f *feed) Close() error { return nil }

func (f *feed) LocalAddr() net.Addr              { return f.c.raw.LocalAddr() }
func (f *feed) RemoteAddr() net.Addr             { return f.c.raw.RemoteAddr() }
func (f *feed) SetDeadline(time.Time) error      { return nil }
func (f *feed) SetReadDeadline(time.Time) error  { return nil }
func (f *feed) SetWriteDeadline(time.Time) error { return nil }
