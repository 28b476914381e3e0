package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/loadgen"
	"gateway/wire"
)

// The origin answers from memory, on one thread, so that it costs the core that
// it shares with the load generator as little as possible. The first segment of
// the path chooses the answer, the rest only makes URLs differ:
//
//	/1k /16k /30k /1m       Cache-Control: no-store
//	/c1k /c16k /c30k /c1m   Cache-Control: public, max-age=3600
//	/n1k /n16k /n30k /n1m   the same, but no body is like another
//	/__count                the number of requests answered so far
//
// Bodies of requests are read and forgotten.
type origin struct {
	poll      *loadgen.Poller
	listeners []int
	answers   map[string][]byte
	conns     map[int32]*originConn // by descriptor
	buffer    []byte
	count     int64
}

type originConn struct {
	fd         int
	generation int32
	in         []byte // received and not yet understood
	out        []byte // of the answer, not yet sent
	rest       int64  // of the request's body
	chunked    bool
	chunks     wire.Chunked
	answer     []byte
	renewed    []byte // memory of an answer whose body is made anew
	last       bool   // close after the answer
}

var answerSizes = map[string]int{"1k": 1 << 10, "16k": 16 << 10, "30k": 30 << 10, "1m": 1 << 20}

// What comes before the number of ten digits that makes a listing another one.
const listingBegin = `{"total":`

// listing is so many bytes of JSON as an API lists things: names repeat, values
// differ. It is always the same.
func listing(size int) []byte {
	r := rand.New(rand.NewPCG(7, 9))
	first := strings.Fields("Ada Grace Linus Ken Dennis Barbara Edsger Donald Margaret Alan John Radia")
	last := strings.Fields("Lovelace Hopper Torvalds Thompson Ritchie Liskov Dijkstra Knuth Hamilton Turing McCarthy Perlman")
	words := strings.Fields("order shipped pending customer invoice north south express priority fragile returned warehouse payment accepted declined review gift blue large small metal wooden the of and with without for from")
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	var b bytes.Buffer
	b.WriteString(listingBegin + `1000000000,"page":1,"items":[`)
	for i := 0; b.Len() < size; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		f, l := pick(first), pick(last)
		fmt.Fprintf(&b, `{"id":%d,"uuid":"%08x-%04x-4%03x-a%03x-%012x","name":"%s %s","email":"%s.%s@example.com","active":%v,"score":%d.%02d,"created_at":"2025-%02d-%02dT%02d:%02d:%02dZ","tags":["%s","%s"],"note":"`,
			100_000+r.IntN(900_000), r.Uint32(), r.IntN(1<<16), r.IntN(1<<12), r.IntN(1<<12), r.Uint64N(1<<48), f, l, strings.ToLower(f), strings.ToLower(l), r.IntN(2) == 0,
			r.IntN(100), r.IntN(100), 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), pick(words), pick(words))
		for range 4 + r.IntN(8) {
			b.WriteString(pick(words) + " ")
		}
		b.WriteString(`"}`)
	}
	return b.Bytes()[:size]
}

// runOrigin serves on the addresses until standard input ends.
func runOrigin(addresses []string) error {
	loadgen.PunctualThread()
	loadgen.RaiseDescriptorLimit(50_000)
	o := &origin{answers: map[string][]byte{}, conns: map[int32]*originConn{}, buffer: make([]byte, 256<<10)}
	for name, size := range answerSizes {
		for prefix, control := range map[string]string{"": "no-store", "c": "public, max-age=3600", "n": "public, max-age=3600"} {
			var b bytes.Buffer
			fmt.Fprintf(&b, "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nETag: \"%s-1\"\r\nCache-Control: %s\r\nX-Request-Id: 0123456789abcdef\r\n\r\n",
				time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), size, name, control)
			b.Write(listing(size))
			o.answers[prefix+name] = b.Bytes()
		}
	}
	var err error
	if o.poll, err = loadgen.NewPoller(); err != nil {
		return err
	}
	for _, a := range addresses {
		if err := o.listen(a); err != nil {
			return fmt.Errorf("listen on %s: %w", a, err)
		}
	}
	fmt.Println("ready")
	go func() { // whoever started it has gone
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		for i := range o.poll.Wait(time.Second) {
			o.event(o.poll.Event(i))
		}
	}
}

func (o *origin) listen(address string) error {
	a, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return err
	}
	o.listeners = append(o.listeners, fd)
	return o.poll.Add(fd, int32(fd), 0)
}

func (o *origin) event(e loadgen.Event) {
	for _, fd := range o.listeners {
		if int(e.Key) == fd {
			o.accept(fd)
			return
		}
	}
	c := o.conns[e.Key]
	if c == nil || c.generation != e.Generation {
		return
	}
	if len(c.out) > 0 && e.Writable && !o.flush(c) || e.Readable && !o.receive(c) {
		unix.Close(c.fd)
		delete(o.conns, e.Key)
	}
}

var generations int32

func (o *origin) accept(listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		generations++
		c := &originConn{fd: fd, generation: generations}
		if o.poll.Add(fd, int32(fd), c.generation) != nil {
			unix.Close(fd)
			continue
		}
		o.conns[int32(fd)] = c
	}
}

// receive reads and answers; false when the connection is to be closed.
func (o *origin) receive(c *originConn) bool {
	for {
		n, errno := loadgen.Read(c.fd, o.buffer)
		if errno == syscall.EAGAIN {
			return true
		}
		if errno != 0 || n == 0 {
			return false
		}
		b := o.buffer[:n]
		if len(c.in) > 0 || len(c.out) > 0 {
			c.in = append(c.in, b...)
			b = c.in
		}
		if len(c.out) == 0 && !o.consume(c, b) {
			return false
		}
		if n < len(o.buffer) {
			return true
		}
	}
}

// consume answers what is complete of b, and keeps the rest.
func (o *origin) consume(c *originConn, b []byte) bool {
	for len(b) > 0 && len(c.out) == 0 {
		switch {
		case c.chunked:
			_, n, done, fault := c.chunks.Decode(b)
			if fault != wire.NoFault {
				return false
			}
			if b = b[n:]; done {
				c.chunked = false
				if !o.reply(c) {
					return false
				}
			}
			continue
		case c.rest > 0:
			n := min(c.rest, int64(len(b)))
			c.rest -= n
			if b = b[n:]; c.rest == 0 && !o.reply(c) {
				return false
			}
			continue
		}
		n, target, ok := c.head(b)
		if !ok {
			return false
		}
		if n == 0 {
			break
		}
		b = b[n:]
		name, _, _ := bytes.Cut(bytes.TrimPrefix(target, []byte("/")), []byte("/"))
		if c.answer = o.answers[string(name)]; c.answer != nil && name[0] == 'n' {
			c.renewed = append(c.renewed[:0], c.answer...)
			_, body, _ := bytes.Cut(c.renewed, []byte("\r\n\r\n"))
			strconv.AppendInt(body[len(listingBegin):len(listingBegin)], 1_000_000_000+o.count, 10)
			c.answer = c.renewed
		}
		if c.answer == nil {
			text := strconv.FormatInt(o.count, 10)
			c.answer = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
			o.count-- // questions do not count
		}
		if c.rest == 0 && !c.chunked && !o.reply(c) {
			return false
		}
	}
	c.in = append(c.in[:0], b...)
	return true
}

// request is reused for each head.
var request wire.Request

func (c *originConn) head(b []byte) (n int, target []byte, ok bool) {
	n, fault := request.Parse(b, &wire.Limits{})
	if fault != wire.NoFault || n == 0 && len(b) > 64<<10 {
		return 0, nil, false
	}
	if n == 0 {
		return 0, nil, true
	}
	c.last = request.Close
	if request.Length == wire.LengthChunked {
		c.chunked = true
		c.chunks.Reset()
	} else {
		c.rest = request.Length
	}
	if request.Expect {
		loadgen.Send(c.fd, []byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
	return n, request.Path, true
}

// reply answers; false when the connection is to be closed.
func (o *origin) reply(c *originConn) bool {
	o.count++
	c.out = c.answer
	return o.flush(c)
}

func (o *origin) flush(c *originConn) bool {
	n, errno := loadgen.Send(c.fd, c.out)
	if errno != 0 && errno != syscall.EAGAIN {
		return false
	}
	if c.out = c.out[n:]; len(c.out) > 0 {
		return true
	}
	if c.last {
		return false
	}
	if len(c.in) > 0 {
		in := c.in
		c.in = nil
		return o.consume(c, in)
	}
	return true
}
