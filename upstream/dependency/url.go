package dependency

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// Kind says which probe a dependency has.
type Kind string

// The kinds of dependencies.
const (
	Postgres      Kind = "postgres"
	Redis         Kind = "redis"
	RedisSentinel Kind = "redis_sentinel"
	RedisCluster  Kind = "redis_cluster"
)

// backend is what a URL says.
type backend struct {
	kind    Kind
	open    opener
	secrets secrets
}

var errURL = errors.New(`unreadable; want a URL such as "postgres://user:password@host:5432/database" or ` +
	`"redis://user:password@host:6379/0", special characters in user and password percent-encoded`)

var errParameters = errors.New("unusable; what is wrong is not told because a password is among the parameters, it may have to be percent-encoded")

// parse reads the URL of o. Its errors hold no part of the URL that may belong
// to a password, also where a password with special characters made another
// URL of it.
func parse(o *Options) (backend, error) {
	a, ok := split(o.URL)
	if !ok {
		return backend{}, errURL
	}
	var b backend
	var err error
	switch a.scheme {
	case "postgres", "postgresql":
		b, err = parsePostgres(o)
	case "redis", "rediss":
		b, err = parseRedis(o, a)
	default:
		return backend{}, fmt.Errorf("unexpected scheme %q; want postgres, postgresql, redis or rediss", a.scheme)
	}
	if query, _ := url.PathUnescape(a.query); err != nil && strings.Contains(strings.ToLower(query), "password") {
		return backend{}, errParameters // an & in a password makes another parameter of its end
	}
	b.secrets = append(b.secrets, a.secrets()...)
	slices.SortFunc(b.secrets, func(a, b string) int { return len(b) - len(a) }) // one may be part of another
	if err != nil {
		return backend{}, errors.New(b.secrets.clean(err.Error()))
	}
	return b, nil
}

// address is a URL in parts, as written. Postgres and Redis Cluster list
// several hosts, which net/url refuses.
type address struct {
	scheme string
	user   string // with its password
	hosts  []string
	path   string
	query  string
}

// split takes a URL apart and reports false when it is ambiguous where things
// begin and end.
func split(text string) (a address, ok bool) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) ||
		strings.ContainsFunc(scheme, func(r rune) bool { return r < 'a' || r > 'z' }) {
		return a, false
	}
	a.scheme = scheme
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	authority, rest := rest[:end], rest[end:]
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		a.user, authority = authority[:i], authority[i+1:]
	}
	// A password with one of "/?#@" in it leaves an @ where none belongs. One
	// that no @ follows stands where a port belongs, most often without host.
	if strings.Contains(a.user, "@") || strings.ContainsAny(rest, "@#") {
		return a, false
	}
	a.hosts = strings.Split(authority, ",")
	for _, host := range a.hosts {
		if i := strings.LastIndexByte(host, ':'); i == 0 || i > strings.LastIndexByte(host, ']') && strings.Trim(host[i+1:], "0123456789") != "" {
			return a, false
		}
	}
	a.path, a.query, _ = strings.Cut(rest, "?")
	for _, part := range []string{authority, a.user, a.path, a.query} {
		if _, err := url.PathUnescape(part); err != nil {
			return a, false
		}
	}
	return a, true
}

// single is the URL with the first host alone; the others become parameters
// addr, as go-redis wants them.
func (a address) single() (string, error) {
	text := a.scheme + "://"
	if a.user != "" {
		text += a.user + "@"
	}
	text += a.hosts[0] + a.path + "?" + a.query
	for i, host := range a.hosts {
		if host == "" && len(a.hosts) > 1 {
			return "", errors.New("an address is empty; want addresses such as host1:6379,host2:6379")
		}
		if i == 0 {
			continue
		}
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), redisPort)
		}
		text += "&addr=" + url.QueryEscape(host)
	}
	return text, nil
}

// secrets are texts that must not be shown.
type secrets []string

func (a address) secrets() (s secrets) {
	add := func(raw string) {
		s = append(s, raw)
		if decoded, err := url.PathUnescape(raw); err == nil {
			s = append(s, decoded)
		}
		if decoded, err := url.QueryUnescape(raw); err == nil {
			s = append(s, decoded)
		}
	}
	_, password, _ := strings.Cut(a.user, ":")
	add(password)
	for pair := range strings.SplitSeq(a.query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(key); err != nil || strings.Contains(strings.ToLower(name), "password") {
			add(value)
		}
	}
	return slices.DeleteFunc(s, func(secret string) bool { return secret == "" })
}

// maxReason is the length of a reason, in bytes.
const maxReason = 300

// clean makes a short line of a text of foreign origin, without secrets.
func (s secrets) clean(text string) string {
	for _, secret := range s {
		text = strings.ReplaceAll(text, secret, "***")
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return text
}
