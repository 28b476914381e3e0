package proxy

import (
	"errors"
	"fmt"
	"strings"

	"gateway/middleware/cache"
	"gateway/wire"
)

// Purge says which stored responses are of no use any more: exactly one of the
// first five.
type Purge struct {
	URL    string // as clients ask for it: "https://host/path?query", with all variants
	Prefix string // "host/path" or a URL: all whose path begins so, of both schemes
	Host   string // with its port if URLs have one
	Tag    string // in Surrogate-Key or Cache-Tag
	All    bool
	Soft   bool // they count as stale, instead of being removed
}

// Purge purges, in this gateway at once and through Redis in those that share
// it. The error says what is wrong with the question.
func (g *Gateway) Purge(p Purge) error {
	named := 0
	for _, is := range []bool{p.URL != "", p.Prefix != "", p.Host != "", p.Tag != "", p.All} {
		if is {
			named++
		}
	}
	if named != 1 {
		return errors.New("what to purge is not clear; want exactly one of url, prefix, host, tag and all")
	}
	s := g.snapshot.Load()
	if s.cache == nil {
		return errors.New("no route caches")
	}
	switch {
	case p.URL != "":
		u, err := parseURL(p.URL)
		if err != nil {
			return err
		}
		s.cache.PurgeURL(s.policies, u, p.Soft)
	case p.Prefix != "":
		text := p.Prefix
		if !strings.Contains(text, "://") {
			text = "http://" + text
		}
		u, err := parseURL(text)
		if err != nil {
			return err
		}
		if u.Query != nil {
			return fmt.Errorf("unexpected query in %q; want the beginning of a path", p.Prefix)
		}
		s.cache.PurgePrefix(string(u.Host), string(u.Path), p.Soft)
	case p.Host != "":
		u, err := parseURL("http://" + p.Host)
		if err != nil || string(u.Path) != "/" || u.Query != nil {
			return fmt.Errorf("unexpected host %q; want a name or an address, with its port if URLs have one", p.Host)
		}
		s.cache.PurgeHost(string(u.Host), p.Soft)
	case p.Tag != "":
		s.cache.PurgeTag(p.Tag, p.Soft)
	default:
		s.cache.PurgeAll(p.Soft)
	}
	return nil
}

// parseURL reads a URL as requests are read, so that it is normalised like them.
func parseURL(text string) (*cache.URL, error) {
	scheme, _, _ := strings.Cut(text, "://")
	q := new(wire.Request)
	if fault := q.ParseParts([]byte("GET"), []byte(text), []byte("HTTP/1.0"), nil, &wire.Limits{}); fault != wire.NoFault || len(q.Host) == 0 {
		return nil, fmt.Errorf("unexpected URL %q; want one such as https://host/path?query", text)
	}
	return &cache.URL{Secure: strings.EqualFold(scheme, "https"), Host: q.Host, Path: q.Path, Query: q.Query}, nil
}
