package proxy

import (
	"gateway/exchange"
	"gateway/internal/pipe"
	"gateway/upstream"
)

// passage leads a large body from the origin's socket to the client's without
// copying it, where nothing between them looks at it. The zero value leads
// nothing.
type passage struct {
	origin *upstream.Call
	client exchange.PipeWriter
	pipe   *pipe.Pipe // nil until needed
}

// passageOf is the one for the answer that has begun.
func passageOf(x *exchange.Exchange) (p passage) {
	origin, ok := x.Response.Stream.(*upstream.Call)
	if !ok {
		return p
	}
	if client, ok := x.Client.(exchange.PipeWriter); ok && client.TakesPipe() {
		p.origin, p.client = origin, client
	}
	return p
}

// move moves the next piece, of so many bytes; 0: it is to be had from the
// stream, or the error that the origin's side has met. An error is the client's.
func (p *passage) move() (n int, err error) {
	if p.origin == nil || !p.origin.Passes() {
		return 0, nil
	}
	if p.pipe == nil {
		if p.pipe = pipe.Acquire(); p.pipe == nil {
			p.origin = nil
			return 0, nil
		}
	}
	if n, err = p.origin.Pass(p.pipe); err != nil {
		return 0, nil
	}
	return n, p.client.WritePipe(p.pipe)
}

func (p *passage) close() {
	if p.pipe != nil {
		p.pipe.Release()
	}
}
