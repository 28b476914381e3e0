package tracing

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"gateway/internal/unit"
)

// Options say which requests are traced, and where their spans go.
type Options struct {
	// Where spans go: a collector that takes OTLP over HTTP, such as
	// "http://127.0.0.1:4318". Without a path, /v1/traces is added. Empty: no
	// request is traced, which costs nothing; trace contexts are passed on.
	Endpoint string `toml:"endpoint"`

	// Fields of the requests to the collector, such as Authorization.
	Headers map[string]string `toml:"headers" secret:"true"`

	// The share of requests that is traced, of those without a parent that
	// decides. The choice depends on the trace id alone.
	Sample unit.Percent `toml:"sample" default:"1%"`

	// Whose traceparent decides whether a request is traced: with trusted that
	// of the proxies in client.trusted_proxies, with all that of every client,
	// who can then have all of its requests traced, with none nobody's.
	Parent string `toml:"parent" default:"trusted" enum:"trusted,all,none"`

	// The gateway's name in traces.
	Service string `toml:"service" default:"gateway"`

	// Traces that wait to be sent, at most; what is more is dropped and counted:
	// requests never wait for the collector.
	Queue int `toml:"queue" default:"2048" min:"16" max:"1048576"`

	// Longest time for a request to the collector. It is repeated within ten
	// times as long when the collector says that this may help.
	Timeout time.Duration `toml:"timeout" default:"5s" min:"10ms" max:"1m"`
}

// Check reports an endpoint that is none.
func (o *Options) Check(report func(key, problem string)) {
	if o.Endpoint == "" {
		return
	}
	if _, err := o.url(); err != nil {
		report("endpoint", err.Error())
	}
}

// url is the endpoint with its path.
func (o *Options) url() (string, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf(`unexpected %q; want the URL of a collector, such as "http://127.0.0.1:4318"`, o.Endpoint)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}
