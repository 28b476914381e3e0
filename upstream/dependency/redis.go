package dependency

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const redisPort = "6379"

// parseRedis finds out which of the forms that go-redis knows a URL has.
func parseRedis(o *Options, a address) (backend, error) {
	text, err := a.single()
	if err != nil {
		return backend{}, err
	}
	own := *o
	u, err := url.Parse(text)
	if err != nil {
		return backend{}, err
	}
	query := u.Query()
	switch {
	case query.Has("master_name"):
		options, err := redis.ParseFailoverURL(text)
		if err != nil {
			return backend{}, err
		}
		if options.MasterName == "" {
			return backend{}, errors.New("the parameter master_name is empty")
		}
		return backend{kind: RedisSentinel, open: func(context.Context) (session, error) { return openSentinel(&own, options), nil }}, nil
	case query.Has("addr"):
		if u.Path != "" && u.Path != "/" && u.Path != "/0" {
			return backend{}, errors.New("a Redis Cluster has no databases; want a URL without path")
		}
		options, err := redis.ParseClusterURL(text)
		if err != nil {
			return backend{}, err
		}
		return backend{kind: RedisCluster, open: func(context.Context) (session, error) { return openCluster(&own, options), nil }}, nil
	}
	options, err := redis.ParseURL(text)
	if err != nil {
		return backend{}, err
	}
	return backend{kind: Redis, open: func(context.Context) (session, error) { return openRedis(&own, options), nil }}, nil
}

// bounded are options for a client that does what a probe needs and no more:
// one connection, no second tries, nothing beyond the deadline. Of o they keep
// whom to ask, and as whom.
func bounded(o *redis.Options, timeout time.Duration, s *sockets) *redis.Options {
	return &redis.Options{
		Network:    o.Network,
		Addr:       o.Addr,
		ClientName: o.ClientName,
		Protocol:   o.Protocol,
		Username:   o.Username,
		Password:   o.Password,
		DB:         o.DB,
		TLSConfig:  o.TLSConfig,
		Dialer:     s.dialer(o.TLSConfig),

		ContextTimeoutEnabled: true,
		MaxRetries:            -1,
		DialerRetries:         1,
		DialTimeout:           timeout,
		ReadTimeout:           timeout,
		WriteTimeout:          timeout,
		PoolTimeout:           timeout,
		PoolSize:              poolSize,
		PipelinePoolSize:      -1,
		ConnMaxIdleTime:       -1,
		DisableIdentity:       true,

		MaintNotificationsConfig: disabledNotifications(),
	}
}

// poolSize is more than the one connection that a client ever has open: after
// so many failed dials go-redis dials in the background, once a second, and
// lets nobody else try. A client does not live to see that many, but for one of
// a cluster's nodes that is away while the others do without it.
const poolSize = 16

func disabledNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// standalone is a session with one Redis server.
type standalone struct {
	sockets *sockets
	client  *redis.Client
	options *Options
}

func openRedis(o *Options, r *redis.Options) *standalone {
	s := newSockets()
	return &standalone{s, redis.NewClient(bounded(r, o.Timeout, s)), o}
}

func (s *standalone) ask(ctx context.Context) error {
	defer s.sockets.until(ctx)()
	return askRedis(ctx, s.client, s.options)
}

func (s *standalone) close() {
	s.client.Close()
	s.sockets.shut()
}

// askRedis asks one server.
func askRedis(ctx context.Context, c *redis.Client, o *Options) error {
	if err := c.Ping(ctx).Err(); err != nil {
		return err
	}
	if !o.Primary && o.MaxLag == 0 {
		return nil
	}
	info, err := c.Info(ctx, "replication").Result()
	if err != nil {
		return err
	}
	return parseReplication(info).judge(o)
}
