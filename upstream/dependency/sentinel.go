package dependency

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// sentinel is a session with the master that Sentinels name. They are asked
// each time: go-redis' own failover client would rather listen to them in the
// background.
type sentinel struct {
	options   *Options
	sockets   *sockets // to the Sentinels
	failover  *redis.FailoverOptions
	sentinels []*redis.SentinelClient // nil until needed, and after a failure
	first     int                     // the sentinel that answered last
	master    *standalone             // nil before the first answer
}

func openSentinel(o *Options, f *redis.FailoverOptions) *sentinel {
	return &sentinel{
		options:   o,
		sockets:   newSockets(),
		failover:  f,
		sentinels: make([]*redis.SentinelClient, len(f.SentinelAddrs)),
	}
}

func (s *sentinel) ask(ctx context.Context) error {
	defer s.sockets.until(ctx)()
	address, err := s.find(ctx)
	switch {
	case err == nil && (s.master == nil || s.master.client.Options().Addr != address):
		if s.master != nil {
			s.master.close()
		}
		s.master = openRedis(s.options, &redis.Options{
			Addr:       address,
			ClientName: s.failover.ClientName,
			Protocol:   s.failover.Protocol,
			Username:   s.failover.Username,
			Password:   s.failover.Password,
			DB:         s.failover.DB,
			TLSConfig:  s.failover.TLSConfig,
		})
	case err != nil && s.master == nil:
		return err
	}
	if err := s.master.ask(ctx); err != nil {
		return fmt.Errorf("master %s: %w", s.master.client.Options().Addr, err)
	}
	return nil
}

// find asks the Sentinels in turn, beginning with the one that answered last.
// Each gets a share of the time that is left, and so does the master.
func (s *sentinel) find(ctx context.Context) (address string, err error) {
	var problem error
	n := len(s.sentinels)
	for i := range n {
		at := (s.first + i) % n
		deadline, _ := ctx.Deadline()
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(n-i+1))
		address, err := s.askSentinel(share, at)
		cancel()
		if err == nil {
			s.first = at
			return address, nil
		}
		if problem == nil {
			problem = fmt.Errorf("sentinel %s: %w", s.failover.SentinelAddrs[at], err)
		}
	}
	return "", problem
}

func (s *sentinel) askSentinel(ctx context.Context, at int) (string, error) {
	c := s.sentinels[at]
	if c == nil {
		c = redis.NewSentinelClient(bounded(&redis.Options{
			Addr:       s.failover.SentinelAddrs[at],
			ClientName: s.failover.ClientName,
			Username:   s.failover.SentinelUsername,
			Password:   s.failover.SentinelPassword,
			TLSConfig:  s.failover.TLSConfig,
		}, s.options.Timeout, s.sockets))
		s.sentinels[at] = c
	}
	answer, err := c.GetMasterAddrByName(ctx, s.failover.MasterName).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return "", fmt.Errorf("no master is named %q", s.failover.MasterName)
	case err != nil:
		c.Close()
		s.sentinels[at] = nil
		return "", err
	case len(answer) != 2:
		return "", errors.New("unexpected answer; want an address")
	}
	return net.JoinHostPort(answer[0], answer[1]), nil
}

func (s *sentinel) close() {
	for _, c := range s.sentinels {
		if c != nil {
			c.Close()
		}
	}
	s.sockets.shut()
	if s.master != nil {
		s.master.close()
	}
}
