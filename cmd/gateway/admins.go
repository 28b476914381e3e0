package main

import (
	"fmt"
	"log/slog"
	"os"
	"slices"

	"gateway/admin"
	"gateway/config"
	"gateway/internal/handover"
	"gateway/listener"
	"gateway/proxy"
)

// admins are the admin and the probes server, a part of the configuration.
type admins struct {
	log           *slog.Logger
	sockets       *handover.Sockets // handed over to this process
	control       *proxy.Gateway
	admin, probes slot
}

// slot is one of the two servers: where it should listen, what does, and what
// it offers.
type slot struct {
	address string
	server  *admin.Server
	access  admin.Access
}

// Prepare binds what c asks for where neither of the two listens already.
func (a *admins) Prepare(c *config.Config) (commit, discard func(), err error) {
	keys, err := listener.LoadKeys(c.Admin.TLS(), a.log)
	if err != nil {
		return nil, nil, fmt.Errorf("admin: %w", err)
	}
	current := [...]slot{a.admin, a.probes}
	next := [...]slot{
		{address: target(c.Admin.Address), access: admin.Access{
			All: true, Token: c.Admin.Token, ReadToken: c.Admin.ReadToken, Keys: keys, Profiles: c.Admin.Profiles}},
		{address: target(c.Probes)},
	}
	var fresh []*admin.Server
	discard = func() {
		for _, s := range fresh {
			s.Close()
		}
		keys.Close()
	}
	for i := range next {
		at := slices.IndexFunc(current[:], func(s slot) bool { return s.address == next[i].address })
		switch {
		case next[i].address == "off":
		case at >= 0:
			next[i].server = current[at].server
		default:
			if next[i].server, err = admin.Listen(next[i].address, next[i].access, a.sockets, a.log); err != nil {
				discard()
				return nil, nil, err
			}
			fresh = append(fresh, next[i].server)
		}
	}
	commit = func() {
		a.admin, a.probes = next[0], next[1]
		for _, s := range next {
			s.server.Offer(s.access)
		}
		if a.control != nil {
			for _, s := range fresh {
				s.Serve(a.control)
			}
		}
		for _, old := range current {
			old.access.Keys.Close()
			if old.server != next[0].server && old.server != next[1].server {
				old.server.Retire()
				// Not waited for: the reload that replaces it may have come
				// through it.
				go old.server.Close()
			}
		}
	}
	return commit, discard, nil
}

// target is where an address is listened on, whether it speaks TLS or not.
func target(a config.OptionalAddress) string {
	switch {
	case !a.On():
		return "off"
	case a.Network == "unix":
		return "unix:" + a.Name
	}
	return a.Name
}

// serve begins to answer on what the first Prepare has bound.
func (a *admins) serve(g *proxy.Gateway) {
	a.control = g
	a.admin.server.Serve(g)
	a.probes.server.Serve(g)
}

// handOver adds the servers' sockets to those of a successor, and says so to the
// servers once start has succeeded.
func (a *admins) handOver(sockets []*os.File, start func([]*os.File) error) error {
	var servers []*admin.Server
	for _, s := range [...]slot{a.admin, a.probes} {
		if s.server == nil {
			continue
		}
		file, err := s.server.File()
		if err != nil {
			return fmt.Errorf("hand over %s: %w", s.address, err)
		}
		defer file.Close()
		sockets, servers = append(sockets, file), append(servers, s.server)
	}
	if err := start(sockets); err != nil {
		return err
	}
	for _, s := range servers {
		s.Share()
	}
	return nil
}

func (a *admins) close() {
	a.admin.server.Close()
	a.probes.server.Close()
	a.admin.access.Keys.Close()
}
