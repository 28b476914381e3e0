package dependency

import (
	"fmt"
	"time"

	"gateway/internal/unit"
)

// Options describe one backend that services behind the gateway depend on. Two
// values that are equal describe the same probe.
type Options struct {
	// Where the backend is, with user and password if it wants them; special
	// characters in these are percent-encoded. The scheme picks the probe.
	//
	// "postgres://user:password@host:5432/database" (or postgresql://)
	// connects, authenticates and runs SELECT 1. Several hosts, separated by
	// commas, are tried in turn. Parameters are those of libpq, such as
	// sslmode and target_session_attrs; those of pgx and its pool are ignored.
	// What the URL leaves out comes from the usual environment variables
	// (PGUSER, PGPASSWORD and so on) and the password file.
	//
	// "redis://user:password@host:6379/0" (rediss:// with TLS) connects,
	// authenticates and sends PING. Parameters are those of go-redis; those
	// about timeouts, retries and pools are ignored.
	//
	// "redis://user:password@host1:6379,host2:6379" with several addresses, or
	// with further ones as parameters addr=host2:6379, is a Redis Cluster: the
	// first node that answers names the masters, and each of them has to
	// answer PING and to say in CLUSTER INFO that the cluster is in order.
	//
	// "redis://host1:26379,host2:26379/0?master_name=name" with a master's name
	// asks these Sentinels for the master, which has to answer PING. User and
	// password in front of the addresses are then those of the Sentinels; those
	// of the master are the parameters username and password. While no Sentinel
	// answers, the master known last is asked.
	//
	// When it is empty, as "${DATABASE_URL:-}" is without that variable, nothing
	// is probed and the dependency counts as connected.
	//
	// One connection to each server is kept open. Take the URL from the
	// environment, as in "${DATABASE_URL}", to keep the password out of the
	// file.
	URL string `toml:"url" secret:"true"`

	// The backend is probed this often, the first time at once, and up to ten
	// times more often when servers fail that need it: nobody is blamed before
	// it is known that the backend is well. While it is disconnected it is
	// probed as many times more often as passes says, and
	// once more, so that it counts as connected again within one interval of
	// its return, unless a probe is waiting for its timeout at that moment.
	Interval time.Duration `toml:"interval" default:"2s" min:"10ms" max:"24h"`

	// A probe that takes longer has failed, connecting and authentication
	// included. Each of several Postgres hosts gets an equal share of it, each
	// node of a Redis Cluster a third. It delays the moment when a backend that
	// hangs counts as disconnected.
	Timeout time.Duration `toml:"timeout" default:"1s" min:"1ms" max:"10m"`

	// So many failed probes in a row make a connected backend disconnected. A
	// backend that has not been probed yet counts as connected, and its first
	// probe alone decides.
	Fails int `toml:"fails" default:"3" min:"1" max:"100"`

	// So many passed probes in a row make a disconnected backend connected.
	Passes int `toml:"passes" default:"2" min:"1" max:"100"`

	// Intervals vary at random by this share, so that many gateways do not
	// probe a backend all at the same moment.
	Jitter unit.Percent `toml:"jitter" default:"10%"`

	// The backend also has to be one that takes writes: Postgres not in
	// recovery, Redis in the role of master.
	Primary bool `toml:"primary" default:"false"`

	// A replica also has to be no further behind than this. Of Postgres it is
	// the age of the last transaction that was replayed, and none while all
	// that was received is replayed and the connection to the primary stands.
	// Of Redis it is the time since the master was heard last, in whole
	// seconds; masters without writes are heard every 10 seconds unless
	// configured otherwise, so that less than 11s makes no sense there. A
	// primary is never behind. 0s does not look at it.
	MaxLag time.Duration `toml:"max_lag" default:"0s" min:"0s" max:"24h"`

	// While the backend is disconnected, /readyz says that the gateway is not
	// ready. All gateways that share the backend say so at the same time, and
	// load balancers then send nobody to any of them, not even for what needs
	// no backend. Only for a backend without which nothing can be answered.
	Ready bool `toml:"ready" default:"false"`
}

// Check reports what is wrong with the options, by key. No problem quotes a
// password.
func (o *Options) Check(report func(key, problem string)) {
	if o.URL == "" {
		return
	}
	backend, problem := parse(o)
	if problem != nil {
		report("url", problem.Error())
	}
	switch {
	case o.MaxLag == 0:
	case o.Primary:
		report("max_lag", "a primary is never behind; want either primary or max_lag")
	case problem != nil:
	case backend.kind == RedisSentinel || backend.kind == RedisCluster:
		report("max_lag", "the probe asks masters, which are never behind; give the URL of a single replica")
	case backend.kind == Redis && o.MaxLag < time.Second:
		report("max_lag", fmt.Sprintf("%v is too short; Redis tells its lag in whole seconds", o.MaxLag))
	}
}
