package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"syscall"
	"time"

	"gateway/accesslog"
	"gateway/config"
	"gateway/listener"
)

// resolveTime bounds how long a new configuration waits for host names; those
// that are not known by then join later.
const resolveTime = 3 * time.Second

// Reload reads the configuration anew and puts it to work: validate, prepare,
// commit, retire. It says in words what changed. After an error nothing has
// changed. One reload runs at a time. ctx ends when the gateway stops.
func (g *Gateway) Reload(ctx context.Context) (changes []string, err error) {
	if g.state.Load() == uint32(draining) {
		return nil, errStopping // without waiting: a stop keeps the lock to its end
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	if g.state.Load() == uint32(draining) {
		return nil, errStopping
	}
	c, err := g.options.Load()
	if err == nil {
		changes, err = g.apply(ctx, c)
	}
	if err == errStopping {
		return nil, err // and nothing is wrong with the file
	}
	if err != nil {
		text := err.Error()
		g.reloadProblem.Store(&text)
		g.counters.reloadsRejected.Inc()
		g.counters.reloadOK.Set(0)
		g.log.Error("configuration rejected, the old one runs on", "error", err)
		return nil, err
	}
	g.reloadProblem.Store(nil)
	g.counters.reloadsApplied.Inc()
	g.counters.reloadOK.Set(1)
	g.log.Info("configuration reloaded", "changes", len(changes))
	for _, change := range changes {
		g.log.Info("changed", "option", change)
	}
	return changes, nil
}

// apply is the part of a reload that the start has too.
func (g *Gateway) apply(ctx context.Context, c *config.Config) (changes []string, err error) {
	old := g.snapshot.Load()
	for _, w := range c.Warnings() {
		g.log.Warn(w.String())
	}

	// Prepare: whatever can fail. undo takes back what was done so far.
	var undo, commits []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	resolve, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	next, err := g.build(resolve, c)
	if err != nil {
		return nil, err
	}
	undo = append(undo, next.discard)
	if old == nil || old.tracer != next.tracer {
		undo = append(undo, func() { g.retireTracer(next.tracer) })
	}
	if ctx.Err() != nil {
		return nil, errStopping // names may be missing that were not waited for
	}

	keys, err := listener.LoadKeys(c.TLS, g.log)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	undo = append(undo, keys.Close)

	access := g.access.Load()
	newAccess := old == nil || old.config.AccessLog != c.AccessLog
	if newAccess {
		if access, err = accesslog.New(c.AccessLog, g.accessTrouble); err != nil {
			return nil, fmt.Errorf("access_log: %w", err)
		}
		undo = append(undo, func() { access.Close(0) })
	}
	for _, part := range g.options.Parts {
		commit, discard, err := part.Prepare(c)
		if err != nil {
			return nil, err
		}
		commits, undo = append(commits, commit), append(undo, discard)
	}
	added, removed, err := g.bind(c) // last: the other sockets of a port cannot simply be brought back
	if err != nil {
		return nil, err
	}

	// Commit: nothing fails from here on.
	g.snapshot.Store(next)
	next.excuse()
	next.limits.Commit()
	next.tier.commit(g)
	next.tier = nil
	g.applyCache(next)
	g.workers.resize(c.Workers)
	g.front.Apply(c.Client, c.MaxConnections, keys)
	oldKeys := g.keys.Swap(keys)
	oldAccess := g.access.Swap(access)
	for _, commit := range commits {
		commit()
	}
	for _, s := range added {
		g.log.Info("listening", "address", s.Addr().String(), "tls", s.Address().Secure)
		if g.state.Load() != uint32(starting) {
			s.Serve()
		}
	}

	// Retire: what nobody uses any more. Requests under way end on it.
	for _, s := range removed {
		g.retiring[s] = struct{}{}
		go s.Retire()
	}
	oldKeys.Close()
	if newAccess && oldAccess != nil {
		g.background.Go(func() { g.retireAccess(oldAccess) })
	}
	if old == nil {
		return nil, nil
	}
	if old.tracer != next.tracer {
		g.background.Go(func() { g.retireTracer(old.tracer) })
	}
	old.close()
	changes, overridden := config.Diff(old.config, c)
	for _, w := range overridden {
		g.log.Warn(w)
	}
	return changes, nil
}

// bind opens the sockets of addresses that are new, and finds those that are
// no longer wanted. Unchanged addresses keep their socket. After an error
// nothing has changed.
func (g *Gateway) bind(c *config.Config) (added, removed []*listener.Socket, err error) {
	wanted := make(map[listener.Address]bool, len(c.Listen))
	for _, a := range c.Listen {
		wanted[a] = true
	}
	retiring := make(map[*listener.Socket]struct{})
	for _, s := range g.front.Sockets() {
		_, leaving := g.retiring[s]
		switch {
		case leaving && wanted[s.Address()]:
			s.Retire() // waits until it is closed
		case leaving:
			retiring[s] = struct{}{}
		case wanted[s.Address()]:
			delete(wanted, s.Address())
		default:
			removed = append(removed, s)
		}
	}
	g.retiring = retiring

	var closed []*listener.Socket
	for _, a := range c.Listen {
		if !wanted[a] {
			continue
		}
		s, err := g.front.Bind(a, c.Client.ReusePort)
		if errors.Is(err, syscall.EADDRINUSE) {
			// Perhaps by a socket that goes anyway, as from one interface to
			// all. Meanwhile new clients wait, in their own kernels.
			for _, s := range slices.Concat(removed, slices.Collect(maps.Keys(retiring))) {
				if samePort(s.Address(), a) {
					s.Retire()
					closed = append(closed, s)
				}
			}
			s, err = g.front.Bind(a, c.Client.ReusePort)
		}
		if err != nil {
			for _, s := range added {
				s.Retire()
			}
			g.restore(removed, closed)
			return nil, nil, err
		}
		added = append(added, s)
	}
	return added, removed, nil
}

// restore opens sockets again that were closed for others, which could not be
// opened.
func (g *Gateway) restore(wanted, closed []*listener.Socket) {
	for _, old := range closed {
		if !slices.Contains(wanted, old) {
			continue
		}
		s, err := g.front.Bind(old.Address(), g.snapshot.Load().config.Client.ReusePort)
		if err != nil {
			g.log.Error("a listener is lost", "address", old.Address().String(), "error", err)
			continue
		}
		s.Serve()
	}
}

// samePort reports whether two addresses have a TCP port in common.
func samePort(a, b listener.Address) bool {
	_, p, errA := net.SplitHostPort(a.Name)
	_, q, errB := net.SplitHostPort(b.Name)
	return a.Network == "tcp" && b.Network == "tcp" && errA == nil && errB == nil && p == q && p != "0"
}

// accessLinger is how long an access log that was replaced is kept open for
// requests that have found it just before.
const accessLinger = time.Second

// retireAccess closes an access log that was replaced.
func (g *Gateway) retireAccess(l *accesslog.Logger) {
	select {
	case <-time.After(accessLinger):
	case <-g.closed:
	}
	if err := l.Close(accessFlush); err != nil {
		g.log.Warn("old access log is not complete", "error", err)
	}
	g.counters.accessDropped.Add(l.Dropped())
}

// accessTrouble is told when the access log cannot be written, and when it can
// again.
func (g *Gateway) accessTrouble(err error) {
	if err != nil {
		g.log.Error("access log cannot be written; requests go on, lines are dropped", "error", err)
		return
	}
	g.log.Info("access log is written again")
}
