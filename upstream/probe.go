package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"gateway/internal/clock"
	"gateway/internal/health"
	"gateway/wire"
)

// watch checks an origin until ctx is done, the first time at once.
func (r *Registry) watch(ctx context.Context, o *origin) {
	check := &o.identity.check
	var checker health.Checker
	var suspected int64 // when so many had failed that the origin was down but for a doubt, as clock.Mono; else 0
	cleared := false    // a doubt is over, and no check has passed since
	for {
		began := time.Now()
		err := r.probe(ctx, o)
		if ctx.Err() != nil {
			return
		}
		if !noResources(err) { // else it says nothing about the origin
			reason := ""
			if err != nil {
				reason = err.Error()
			}
			before, since, doubted := checker, suspected, suspected != 0
			cleared = cleared && err != nil
			state := checker.Next(err == nil, check.fails, check.passes)
			suspected = 0
			switch {
			case err == nil || !reached(err):
			case r.excused(o): // and nothing of this counts later
				checker = health.Checker{State: health.Up}
				state = checker.State
			case state == health.Down && before.State != health.Down:
				if since == 0 {
					since = clock.Mono()
				}
				switch {
				case r.doubtful(o, since):
					state, checker, suspected = before.State, before, since // until the next check
				case doubted && !cleared:
					// Nobody is in doubt now. But what has failed so far may
					// tell of an outage that was over before it was found out:
					// it takes as many again.
					checker, cleared = health.Checker{State: before.State}, true
					state = checker.State
				}
			}
			if o.become(state, reason) {
				r.flipped(o, state != health.Down, reason)
			}
		}
		pause := check.interval
		if checker.State == health.Down || checker.Streak > 0 {
			pause = check.fast // a change is under way, or all wait for one
		}
		if suspected != 0 {
			pause = min(pause, doubtPause)
		}
		pause = vary(pause, check.jitter) - time.Since(began)
		if !clock.Sleep(ctx, max(pause, 0)) {
			return
		}
	}
}

// doubtPause is how soon a check is repeated whose verdict waits: in the
// meantime it should have been found out whose fault it is.
const doubtPause = 200 * time.Millisecond

// unreachable is why no connection to an origin could be opened: nobody is
// there, whatever else is out of order.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// reached reports whether a check came as far as the origin.
func reached(err error) bool {
	var u unreachable
	return !errors.As(err, &u)
}

const (
	probeFields = 256      // of a response
	probeBody   = 64 << 10 // bytes read of a body, to let the origin finish it
)

// probe checks an origin once, over a connection of its own. The error is the
// reason why the check failed.
func probe(ctx context.Context, o *origin) error {
	check := &o.identity.check
	ctx, cancel := context.WithTimeout(ctx, check.timeout)
	defer cancel()
	err := exchangeProbe(ctx, o, check)
	if err == nil || ctx.Err() == nil || noResources(err) {
		return err
	}
	late := fmt.Errorf("no answer within %v", check.timeout)
	if !reached(err) {
		return unreachable{late}
	}
	return late
}

func exchangeProbe(ctx context.Context, o *origin, check *check) error {
	var dialer net.Dialer
	address := o.identity.address
	if check.port != 0 && o.identity.network == "tcp" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			panic("BUG: address of an origin: " + err.Error())
		}
		address = net.JoinHostPort(host, strconv.Itoa(check.port))
	}
	socket, err := dialer.DialContext(ctx, o.identity.network, address)
	if err != nil {
		var call *os.SyscallError // "connect: connection refused", without the address
		if errors.As(err, &call) {
			return unreachable{call}
		}
		return unreachable{err}
	}
	defer socket.Close()
	if check.tcp {
		return nil
	}
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	conn := socket
	if o.tls != nil {
		secure := tls.Client(socket, o.tls)
		defer secure.Close() // says goodbye
		if err := secure.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS handshake: %w", err)
		}
		conn = secure
	}
	if _, err := io.WriteString(conn, check.request); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	return readProbe(conn, o.identity.maxHeader, check)
}

// readProbe reads the response to a check as strictly as any response is read.
func readProbe(conn net.Conn, maxHeader int, check *check) error {
	var res wire.Response
	buf := make([]byte, 0, min(maxHeader, 4<<10))
	for {
		if len(buf) == cap(buf) {
			if cap(buf) >= maxHeader {
				return fmt.Errorf("head of response exceeds %d bytes", maxHeader)
			}
			buf = append(make([]byte, 0, min(2*cap(buf), maxHeader)), buf...)
		}
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		for {
			n, fault := res.Parse(buf, wire.MethodGet, probeFields)
			if fault != wire.NoFault {
				return fmt.Errorf("invalid response: %v", fault)
			}
			if n == 0 {
				break // more is needed
			}
			buf = buf[n:]
			if res.Status >= 200 {
				if check.body != "" && check.status.Has(res.Status) {
					return matchProbe(io.MultiReader(bytes.NewReader(buf), conn), &res, check.body)
				}
				if rest := res.Length - int64(len(buf)); rest > 0 && res.Length <= probeBody {
					io.CopyN(io.Discard, conn, rest) // a close with bytes unread would reset
				}
				if !check.status.Has(res.Status) {
					return fmt.Errorf("status %d, want %v", res.Status, check.status)
				}
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("read response: %w", err)
		}
	}
}

// matchProbe reads the beginning of the body of a response to a check and
// looks for the text that it must contain.
func matchProbe(r io.Reader, res *wire.Response, want string) error {
	body := make([]byte, 0, 4<<10)
	piece := make([]byte, 4<<10)
	var chunks wire.Chunked
	left := res.Length
	for len(body) < probeBody && left != 0 {
		n, err := r.Read(piece)
		data := piece[:n]
		switch {
		case res.Length == wire.LengthChunked:
			for len(data) > 0 && left != 0 {
				part, used, done, fault := chunks.Decode(data)
				if fault != wire.NoFault {
					return fmt.Errorf("invalid response: %v", fault)
				}
				body, data = append(body, part...), data[used:]
				if done {
					left = 0
				}
			}
		case left > 0:
			data = data[:min(int64(len(data)), left)]
			left -= int64(len(data))
			body = append(body, data...)
		default:
			body = append(body, data...)
		}
		if err == io.EOF && res.Length == wire.LengthUntilClose {
			break
		}
		if err != nil && left != 0 {
			return fmt.Errorf("read body of response: %w", err)
		}
	}
	if !bytes.Contains(body[:min(len(body), probeBody)], []byte(want)) {
		return fmt.Errorf("body does not contain %q", want)
	}
	return nil
}
