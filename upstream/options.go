package upstream

import (
	"fmt"
	"strings"
	"time"

	"gateway/internal/unit"
)

// Options describe one pool of servers.
type Options struct {
	// The servers of the pool, each as "host:port", "https://host:port",
	// "unix:/path", or as a table with more settings. A host name stands for
	// all of its addresses, and they are looked up again while the gateway
	// runs; a name that can't be looked up at the start does not stop the
	// gateway, its servers join when the name is known. The name localhost
	// stands for its IPv4 address alone if it has one.
	// "srv:_http._tcp.example.com" stands for the servers that SRV records
	// name, with their ports and weights: those of the best priority, all
	// others as backups. With "srv:_https._tcp.…" they are spoken to in TLS,
	// and their certificates must be valid for example.com.
	Servers []ServerOptions `toml:"servers"`

	// How a server is chosen for a request. With round_robin the servers take
	// turns according to their weights, evenly interleaved. With least_conn the
	// server with the fewest requests in flight in relation to its weight is
	// taken, and equal ones take turns; of more than 32 servers it looks at 32.
	// With p2c two servers are drawn by their weights, and the one with fewer
	// requests in flight is taken: nearly as even, and as cheap with many
	// servers as with few. peak_ewma does the same with latency times requests
	// in flight, so that slow servers get little; it suits servers that differ,
	// and requests that take about the same time. With hash, requests with the
	// same hash_key go to the same server, and few of them move when servers
	// come or go; a server that has a quarter more than its share of the
	// requests in flight passes the surplus on.
	Balance string `toml:"balance" default:"round_robin" enum:"round_robin,least_conn,p2c,peak_ewma,hash"`

	// What balance = "hash" goes by: "ip", "path", "header:NAME",
	// "cookie:NAME" or "query:NAME". Requests without it go to any server.
	HashKey HashKey `toml:"hash_key" default:"ip"`

	// Clients stay with the server that answered them first, for as long as it
	// is usable. The gateway marks them with a cookie, which says nothing about
	// the server and can't be forged; it works with every way to balance. Give
	// the name of the cookie, or a table; true is the default name.
	Sticky StickyOptions `toml:"sticky"`

	// The Host field that the servers get. Empty: the one that the client
	// sent.
	Host string `toml:"host"`

	// TLS to servers whose address begins with https://.
	TLS TLSOptions `toml:"tls"`

	// Longest time to open a connection to a server, TLS handshake included.
	ConnectTimeout time.Duration `toml:"connect_timeout" default:"5s" min:"1ms" max:"10m"`

	// Longest time from the end of the request until the response begins.
	// Raise it for long polling.
	FirstByteTimeout time.Duration `toml:"first_byte_timeout" default:"60s" min:"1ms" max:"24h"`

	// Longest silence of a server inside a response, and longest time without
	// progress while a request is sent. Raise it for server-sent events with
	// long pauses.
	BetweenTimeout time.Duration `toml:"between_timeout" default:"60s" min:"1ms" max:"24h"`

	// Idle connections are closed after this time. Keep it below the idle
	// timeout of the servers: a request on a connection that is being closed
	// has to be sent again, or fails if its method is not idempotent. 0s keeps
	// no connections.
	KeepaliveIdle time.Duration `toml:"keepalive_idle" default:"60s" min:"0s" max:"24h"`

	// Idle connections that are kept to each server at most. 0 keeps none.
	MaxIdle int `toml:"max_idle" default:"256" min:"0" max:"65536"`

	// Requests in flight to each server at most, those of other pools to the
	// same server included. When all servers are at their limit, requests
	// wait in the queue, or clients get 503. A server can have a limit of its
	// own. 0 is no limit.
	MaxConnections int `toml:"max_connections" default:"0" min:"0" max:"1000000"`

	// Requests that wait at most while all servers are at their limit, or the
	// pool at the one of adaptive. The one that has waited longest is served
	// first; further ones get 503 at once. 0 is no queue.
	Queue int `toml:"queue" default:"0" min:"0" max:"1000000"`

	// A request that has waited in the queue for so long gets 503.
	QueueTimeout time.Duration `toml:"queue_timeout" default:"1s" min:"1ms" max:"10m"`

	// The pool's requests in flight are limited to what its servers can do at
	// the same time, which is found out by watching how their latency grows
	// with the load. What is more waits in the queue, or gets 503: without the
	// limit a flood makes all answers slow. true takes the default settings.
	// It suits pools whose requests take about the same time.
	Adaptive AdaptiveOptions `toml:"adaptive"`

	// Largest head of a response, status line and fields together. A response
	// with a larger one is answered with 502.
	MaxResponseHeader unit.Size `toml:"max_response_header" default:"64KiB" min:"1KiB" max:"128KiB"`

	// Host names of servers are looked up again this often, whatever lifetime
	// their records have. When a lookup fails, the addresses known so far stay in use. 0s looks them up once.
	Resolve time.Duration `toml:"resolve" default:"10s" min:"0s" max:"24h"`

	// Active health checks: each server is asked at intervals, and gets no
	// requests while it does not answer rightly. true checks with the default
	// settings. Without checks every server counts as healthy. A server that
	// has not been checked yet counts as healthy too, and its first check
	// alone decides; after that it takes several in a row to change its state.
	Health HealthOptions `toml:"health"`

	// Servers that fail requests are taken out of use for a while: after so
	// many failures in a row, or when too large a share of the requests fails.
	// A failure is a response with status 500 and above, or none. Then one
	// request is tried; if it succeeds, the server is back and gets its share
	// over slow_start. When more than half of the pool is out, all are used
	// nevertheless. false never does it, true takes the default settings.
	Eject EjectOptions `toml:"eject" default:"true"`

	// A server that comes back, after failed checks or after it was taken out
	// for failing requests, begins with a tenth of its share of the requests
	// and has all of it after this time. 0s gives it all at once.
	SlowStart time.Duration `toml:"slow_start" default:"10s" min:"0s" max:"1h"`

	// Repeated attempts when a server fails. Only requests that can be sent
	// twice without harm are repeated, always to another server, and only
	// before the client has got a part of an answer.
	Retry RetryOptions `toml:"retry"`
}

// ServerOptions are one entry of the list of servers.
type ServerOptions struct {
	// Where the server listens: "host:port", "https://host:port",
	// "unix:/path" or "srv:_http._tcp.example.com".
	Address string `toml:"address"`

	// The server's share of the requests in relation to the other servers of
	// the pool. For a host name: of each of its addresses. For SRV records, it
	// multiplies the weights that they give.
	Weight int `toml:"weight" default:"1" min:"1" max:"1000"`

	// The server gets requests only while no other server of the pool is
	// healthy, and repeated attempts when all others have failed for the same
	// request. Servers at their limit of requests do not make way for it.
	Backup bool `toml:"backup" default:"false"`

	// Requests in flight to this server at most. 0 takes the limit of the
	// pool.
	MaxConnections int `toml:"max_connections" default:"0" min:"0" max:"1000000"`
}

// UnmarshalTOML reads an address. It accepts any table: the configuration reads
// its keys.
func (o *ServerOptions) UnmarshalTOML(v any) error {
	*o = ServerOptions{Weight: 1}
	switch v := v.(type) {
	case string:
		o.Address = v
		return nil
	case map[string]any:
		return nil
	}
	return fmt.Errorf(`unexpected %v; want an address such as "10.0.0.1:8080", or a table with address, weight, backup and max_connections`, v)
}

// TLSOptions say how the gateway speaks TLS to servers.
type TLSOptions struct {
	// File with the certificates, in PEM, of the authorities that may have
	// issued the servers' certificates. Empty: those that the system trusts.
	CA string `toml:"ca"`

	// File with the certificate, in PEM, that the gateway shows to servers
	// that ask for one, followed by intermediate certificates if need be.
	Cert string `toml:"cert"`

	// File with the private key, in PEM, of that certificate.
	Key string `toml:"key"`

	// The name that is sent to the servers (SNI) and that their certificates
	// must be valid for. Empty: the host in the server's address.
	ServerName string `toml:"server_name"`

	// The servers' certificates are verified. Without verification anybody on
	// the way to the server can read and change what is sent.
	Verify bool `toml:"verify" default:"true"`
}

// HealthOptions are a pool's active health checks.
type HealthOptions struct {
	// On is set by any value but false.
	On bool `toml:"-"`

	// With http a request is sent and the response judged. With tcp it is
	// enough that a connection can be opened.
	Type string `toml:"type" default:"http" enum:"http,tcp"`

	// The path, with its query if need be, that is asked for with GET.
	Path string `toml:"path" default:"/"`

	// Each server is checked this often.
	Interval time.Duration `toml:"interval" default:"2s" min:"10ms" max:"24h"`

	// A server is checked this often while it is down, and while its checks
	// contradict its state: changes are noticed sooner. 0s is a quarter of the
	// interval; more than the interval is the interval.
	FastInterval time.Duration `toml:"fast_interval" default:"0s" min:"0s" max:"24h"`

	// A check that takes longer has failed.
	Timeout time.Duration `toml:"timeout" default:"2s" min:"1ms" max:"10m"`

	// So many failed checks in a row make a server unhealthy.
	Fails int `toml:"fails" default:"3" min:"1" max:"100"`

	// So many passed checks in a row make a server healthy again.
	Passes int `toml:"passes" default:"2" min:"1" max:"100"`

	// The Host field of the checks. Empty: the host of the pool, or else the
	// server's address as configured.
	Host string `toml:"host"`

	// Fields that the checks carry beside Host, such as Authorization.
	Headers map[string]string `toml:"headers"`

	// The port that is checked, where it is not the one that requests go to.
	// 0 is the same. It has no effect on Unix sockets.
	Port int `toml:"port" default:"0" min:"0" max:"65535"`

	// The status codes with which a check is passed: codes and ranges,
	// separated by commas, such as "200-299,401".
	Status Statuses `toml:"status" default:"200-399"`

	// Text that the first 64 KiB of the response's body must contain for the
	// check to be passed. Empty: the body does not matter.
	Body string `toml:"body"`

	// Intervals vary at random by this share, so that many gateways do not
	// check a server all at the same moment.
	Jitter unit.Percent `toml:"jitter" default:"10%"`
}

// DefaultHealth are the checks that "health = true" asks for.
func DefaultHealth() HealthOptions {
	o := HealthOptions{
		On:       true,
		Type:     "http",
		Path:     "/",
		Interval: 2 * time.Second,
		Timeout:  2 * time.Second,
		Fails:    3,
		Passes:   2,
		Jitter:   10,
	}
	for status := 200; status <= 399; status++ {
		o.Status.add(status)
	}
	return o
}

// UnmarshalTOML reads true or false. It takes any table for true: the
// configuration reads its keys.
func (o *HealthOptions) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case bool:
		*o = HealthOptions{}
		if v {
			*o = DefaultHealth()
		}
		return nil
	case map[string]any:
		*o = DefaultHealth()
		return nil
	case string:
		return fmt.Errorf("unexpected %q; want true, false or a table such as { path = \"/health\" }", v)
	}
	return fmt.Errorf("unexpected %v; want true, false or a table such as { path = \"/health\" }", v)
}

// Check reports what is wrong with the options, by key below the pool's own
// ("servers[1]", "tls.key").
func (o *Options) Check(report func(key, problem string)) {
	if len(o.Servers) == 0 {
		report("servers", `no server; want at least one, such as "10.0.0.1:8080"`)
	}
	secure := false
	seen := make(map[target]int, len(o.Servers))
	for i, s := range o.Servers {
		key := fmt.Sprintf("servers[%d]", i)
		t, err := parseTarget(s.Address)
		if err != nil {
			report(key, err.Error())
			continue
		}
		if first, double := seen[t]; double {
			report(key, fmt.Sprintf("%q is servers[%d] already; give it a weight instead", s.Address, first))
			continue
		}
		seen[t] = i
		secure = secure || t.secure
	}
	if len(seen) > 0 && !secure && (o.TLS.CA != "" || o.TLS.Cert != "" || o.TLS.Key != "" || o.TLS.ServerName != "") {
		report("tls", `no server speaks TLS; write its address as "https://host:port"`)
	}
	if o.TLS.Cert != "" && o.TLS.Key == "" {
		report("tls.key", "missing; tls.cert needs its private key")
	}
	if o.TLS.Key != "" && o.TLS.Cert == "" {
		report("tls.cert", "missing; tls.key needs its certificate")
	}
	if o.Resolve > 0 && o.Resolve < minResolve {
		report("resolve", fmt.Sprintf("%v is too often; want at least %v, or 0s to look names up once", o.Resolve, minResolve))
	}
	checkHost(report, "host", o.Host)
	o.Sticky.check(report)
	o.Adaptive.check(report)
	if o.Health.On {
		checkHost(report, "health.host", o.Health.Host)
		checkFields(report, "health.headers", o.Health.Headers)
		if !strings.HasPrefix(o.Health.Path, "/") || !visible(o.Health.Path) || strings.Contains(o.Health.Path, "#") {
			report("health.path", fmt.Sprintf(`unexpected path %q; want one such as "/health", anything but printable ASCII percent-encoded`, o.Health.Path))
		}
	}
}

// minResolve spares name servers.
const minResolve = 100 * time.Millisecond

func checkHost(report func(key, problem string), key, host string) {
	if !visible(host) || strings.ContainsAny(host, "/@,?#") {
		report(key, fmt.Sprintf(`unexpected host %q; want a host, or host and port, such as "example.com"`, host))
	}
}

// visible reports whether s can stand in a request line.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// limit is the limit of requests in flight of a server, 0 without one.
func (o *Options) limit(s *ServerOptions) int64 {
	if s.MaxConnections > 0 {
		return int64(s.MaxConnections)
	}
	return int64(o.MaxConnections)
}
