package upstream

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gateway/internal/ascii"
)

// check is how an origin is checked: HealthOptions as they apply to it. It is
// comparable, because origins that are checked in different ways are different.
type check struct {
	on            bool
	tcp           bool   // a connection will do
	request       string // complete
	port          int    // 0: the origin's
	interval      time.Duration
	fast          time.Duration // while the state is in doubt
	timeout       time.Duration
	jitter        float64
	fails, passes int
	status        Statuses
	body          string // must be in the response, "" for anything
}

// newCheck is the check of a target in a pool with that Host.
func newCheck(o *HealthOptions, host string, t target) check {
	c := check{
		on: true, tcp: o.Type == "tcp", port: o.Port,
		interval: o.Interval, fast: o.Interval / 4, timeout: o.Timeout, jitter: o.Jitter.Fraction(),
		fails: o.Fails, passes: o.Passes, status: o.Status, body: o.Body,
	}
	if o.FastInterval > 0 {
		c.fast = min(o.FastInterval, o.Interval)
	}
	if c.tcp {
		c.status, c.body = Statuses{}, "" // they make no difference
		return c
	}
	if o.Host != "" {
		host = o.Host
	}
	if host == "" {
		host = t.authority()
	}
	var b strings.Builder
	b.WriteString("GET " + o.Path + " HTTP/1.1\r\nHost: " + host + "\r\n")
	names := slices.Sorted(maps.Keys(o.Headers))
	for _, usual := range [...][2]string{{"User-Agent", "gateway-health"}, {"Accept", "*/*"}} {
		if !slices.ContainsFunc(names, func(own string) bool { return strings.EqualFold(own, usual[0]) }) {
			b.WriteString(usual[0] + ": " + usual[1] + "\r\n")
		}
	}
	for _, name := range names {
		b.WriteString(name + ": " + o.Headers[name] + "\r\n")
	}
	b.WriteString("Connection: close\r\n\r\n")
	c.request = b.String()
	return c
}

// checkFields reports fields that can't be sent as they are.
func checkFields(report func(key, problem string), key string, fields map[string]string) {
	for name, value := range fields {
		at := key + "." + name
		switch strings.ToLower(name) {
		case "host":
			report(at, "can't be set here; want health.host")
		case "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "expect":
			report(at, "can't be set: it frames the request")
		default:
			if !ascii.IsToken(name) {
				report(at, fmt.Sprintf("unexpected field name %q", name))
			} else if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				report(at, "unexpected control character in the value")
			}
		}
	}
}
