package dependency

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// session is a way to ask a backend whether it is well, with the connections
// that are kept for it. It is used by one goroutine.
type session interface {
	// ask is nil when the backend is well; otherwise the session is good for
	// nothing but close. It ends when ctx does, also when the backend hangs.
	ask(ctx context.Context) error

	// close closes the connections. It waits for no answer.
	close()
}

// opener begins a session. It ends when ctx does.
type opener func(ctx context.Context) (session, error)

// prober asks again and again.
type prober struct {
	open    opener
	timeout time.Duration
	secrets secrets
	session session // nil before the first probe and after a failed one
}

// probe asks once. The reason is "" when the backend is well, else it is short
// and holds no secrets. The verdict is void when the probe could not be made.
//
// What a kept connection says against the backend only counts when a new one
// says the same: the server may have closed it while it was idle, or it leads
// to a server that is not the primary any more.
func (p *prober) probe(ctx context.Context) (reason string, void bool) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	kept := p.session != nil
	err := p.try(ctx)
	if err != nil && kept && !p.late(ctx) {
		err = p.try(ctx)
	}
	switch {
	case err == nil:
		return "", false
	case noResources(err):
		return p.secrets.clean(err.Error()), true
	case p.late(ctx):
		return fmt.Sprintf("no answer within %v", p.timeout), false
	}
	return p.secrets.clean(err.Error()), false
}

// late reports whether time is up. The deadlines of connections may be a
// moment ahead of the context's timer.
func (p *prober) late(ctx context.Context) bool {
	deadline, _ := ctx.Deadline()
	return ctx.Err() != nil || !time.Now().Before(deadline)
}

// try asks over the kept session or a new one. A session that brought bad news
// is not kept.
func (p *prober) try(ctx context.Context) error {
	if p.session == nil {
		s, err := p.open(ctx)
		if err != nil {
			return err
		}
		p.session = s
	}
	err := p.session.ask(ctx)
	if err != nil {
		p.close()
	}
	return err
}

func (p *prober) close() {
	if p.session != nil {
		p.session.close()
		p.session = nil
	}
}

// noResources reports whether this machine lacks something, which says nothing
// about the backend.
func noResources(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM:
		return true
	}
	return false
}
