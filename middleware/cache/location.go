package cache

import (
	"bytes"
	"net/url"

	"gateway/wire"
)

// resolve is the URL that a reference in Location or Content-Location means;
// false when it is no URL of the same origin (RFC 9111 section 4.4).
func resolve(base *URL, reference []byte) (URL, bool) {
	scheme := "http"
	if base.Secure {
		scheme = "https"
	}
	b, err := url.Parse(scheme + "://" + string(base.Host) + string(base.Path))
	if err != nil {
		return URL{}, false
	}
	r, err := b.Parse(string(reference))
	if err != nil || r.Scheme != scheme || r.User != nil {
		return URL{}, false
	}
	if base.Query != nil && len(reference) > 0 && reference[0] == '#' {
		r.RawQuery = string(base.Query)
	}
	// The parser of requests normalises the path as it does for a client.
	target := r.EscapedPath()
	if target == "" {
		target = "/"
	}
	if r.RawQuery != "" || r.ForceQuery {
		target += "?" + r.RawQuery
	}
	var q wire.Request
	fields := []byte("Host: " + r.Host + "\r\n")
	if f := q.ParseParts([]byte("GET"), []byte(target), []byte("HTTP/1.1"), fields, &wire.Limits{}); f != wire.NoFault {
		return URL{}, false
	}
	if !bytes.Equal(q.Host, base.Host) && !bytes.Equal(withoutPort(q.Host, scheme), withoutPort(base.Host, scheme)) {
		return URL{}, false
	}
	return URL{Secure: base.Secure, Host: base.Host, Path: bytes.Clone(q.Path), Query: bytes.Clone(q.Query)}, true
}

func withoutPort(host []byte, scheme string) []byte {
	port := ":80"
	if scheme == "https" {
		port = ":443"
	}
	return bytes.TrimSuffix(host, []byte(port))
}
