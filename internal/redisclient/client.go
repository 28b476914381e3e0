package redisclient

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

var silence sync.Once

// New makes a client of a server, a Cluster or what Sentinels watch; Redis need
// not be there. No call takes longer than patience, connecting included, and
// contexts set nearer deadlines. Errors hold nothing of the URL, which may have
// a password. The caller closes it.
func New(o Options, patience time.Duration) (redis.UniversalClient, error) {
	options, err := clientOptions(o, patience)
	if err != nil {
		return nil, err
	}
	silence.Do(func() { redis.SetLogger(&logging.VoidLogger{}) }) // it reports each dial that fails; we report the first
	return redis.NewUniversalClient(options), nil
}

// clientOptions reads the URL and sets what a request path wants of a client.
func clientOptions(o Options, patience time.Duration) (*redis.UniversalOptions, error) {
	u, err := oneHost(o.URL)
	if err != nil {
		return nil, err
	}
	bad := func(err error) (*redis.UniversalOptions, error) {
		var wrapped *url.Error
		if errors.As(err, &wrapped) || u.User != nil || strings.Contains(u.RawQuery, "password") {
			return nil, errors.New("parse Redis URL: not understood; it is not shown because it may hold a password")
		}
		return nil, fmt.Errorf("parse Redis URL: %w", err)
	}
	var c *redis.UniversalOptions
	switch query := u.Query(); {
	case query.Has("master_name"):
		f, err := redis.ParseFailoverURL(u.String())
		if err != nil {
			return bad(err)
		}
		c = &redis.UniversalOptions{
			Addrs: f.SentinelAddrs, MasterName: f.MasterName, SentinelUsername: f.SentinelUsername, SentinelPassword: f.SentinelPassword,
			Username: f.Username, Password: f.Password, DB: f.DB, TLSConfig: f.TLSConfig,
		}
	case query.Has("addr"):
		f, err := redis.ParseClusterURL(u.String())
		if err != nil {
			return bad(err)
		}
		c = &redis.UniversalOptions{Addrs: f.Addrs, Username: f.Username, Password: f.Password, TLSConfig: f.TLSConfig, IsClusterMode: true}
	default:
		f, err := redis.ParseURL(u.String())
		if err != nil {
			return bad(err)
		}
		c = &redis.UniversalOptions{Addrs: []string{f.Addr}, Username: f.Username, Password: f.Password, DB: f.DB, TLSConfig: f.TLSConfig}
	}
	c.Protocol = 2 // no pushes: nothing here listens to them
	c.DisableIdentity = true
	c.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	c.ContextTimeoutEnabled = true
	c.MaxRetries = -1
	c.DialerRetries = 1
	c.PipelinePoolSize = -1
	c.PoolSize, c.MaxActiveConns = o.PoolSize, o.PoolSize
	c.DialTimeout, c.ReadTimeout, c.WriteTimeout, c.PoolTimeout = patience, patience, patience, patience
	return c, nil
}

// oneHost is the URL with the first of its hosts, the others as parameters
// addr, which is how go-redis has them.
func oneHost(text string) (*url.URL, error) {
	errURL := errors.New(`parse Redis URL: unreadable; want redis://host:6379/0`)
	scheme, rest, found := strings.Cut(text, "://")
	if !found || scheme != "redis" && scheme != "rediss" {
		return nil, errURL
	}
	end := len(rest)
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		end = i
	}
	user, hosts := "", rest[:end]
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		user, hosts = hosts[:i+1], hosts[i+1:]
	}
	list := strings.Split(hosts, ",")
	u, err := url.Parse(scheme + "://" + user + list[0] + rest[end:])
	if err != nil || u.Host == "" {
		return nil, errURL
	}
	query := u.Query()
	for _, host := range list[1:] {
		if host == "" {
			return nil, errURL
		}
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), "6379")
		}
		query.Add("addr", host)
	}
	u.RawQuery = query.Encode()
	return u, nil
}
