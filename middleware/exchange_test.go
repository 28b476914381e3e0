package middleware

import (
	"net/netip"
	"strings"
	"testing"

	"gateway/exchange"
	"gateway/internal/unit"
	"gateway/wire"
)

// ask makes an exchange for "METHOD host target" with these field lines, from
// a peer ("" for a Unix socket's).
func ask(t testing.TB, peer, line string, fields ...string) *exchange.Exchange {
	t.Helper()
	x := exchange.Acquire()
	t.Cleanup(func() { exchange.Release(x) })
	f := strings.Fields(line)
	section := "Host: " + f[1] + "\r\n"
	for _, field := range fields {
		section += field + "\r\n"
	}
	if fault := x.Request.ParseParts([]byte(f[0]), []byte(f[2]), []byte("HTTP/1.1"), []byte(section+"\r\n"), &wire.Limits{}); fault != wire.NoFault {
		t.Fatalf("parse %q: %v", section, fault)
	}
	if peer != "" {
		x.Peer = netip.AddrPortFrom(netip.MustParseAddr(peer), 4711)
	}
	x.Path, x.Query = x.Request.Path, x.Request.Query
	return x
}

// values are those of all fields of that name, in order, joined by "|".
func values(h *wire.Header, name string) string {
	var list []string
	for i := range h.Len() {
		if n, v, _, ok := h.Field(i); ok && strings.EqualFold(string(n), name) {
			list = append(list, string(v))
		}
	}
	return strings.Join(list, "|")
}

func prefixes(t testing.TB, texts ...string) (list []unit.Prefix) {
	t.Helper()
	for _, text := range texts {
		p, err := unit.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// problems are what a check reports, "key: problem", joined by "|".
func problems(check func(func(key, problem string))) string {
	var list []string
	check(func(key, problem string) { list = append(list, key+": "+problem) })
	return strings.Join(list, "|")
}
