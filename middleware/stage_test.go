package middleware

import (
	"net/netip"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/internal/mallocs"
	"gateway/wire"
)

func TestStagesThatAreOffDoNothing(t *testing.T) {
	x := ask(t, "192.0.2.1", "OPTIONS a /p", "Origin: https://a", "Access-Control-Request-Method: GET")
	x.Own(200)
	fields := x.Request.Header.Len()
	(*Identity)(nil).Before(x)
	(*Identity)(nil).Forward(x)
	(*Rewrite)(nil).Before(x)
	(*Headers)(nil).Request(x)
	(*Headers)(nil).Response(x)
	(*CORS)(nil).After(x)
	if !(*Access)(nil).Before(x) || (*CORS)(nil).Preflight(x) || x.ID != nil || string(x.Path) != "/p" ||
		x.Request.Header.Len() != fields || x.Response.Header.Len() != 0 {
		t.Error("a nil stage did something")
	}
}

func TestStagesAllocateNothing(t *testing.T) {
	var (
		identity = NewIdentity(prefixes(t, "10.0.0.0/8"), nil)
		access   = NewAccess(AccessOptions{Allow: prefixes(t, "10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"), Deny: prefixes(t, "10.9.0.0/16")})
		rewrite  = NewRewrite(RewriteOptions{StripPrefix: "/api", AddPrefix: "/v2"})
		headers  = NewHeaders(HeaderOptions{
			SetRequestHeaders: map[string]string{"X-A": "1"}, RemoveRequestHeaders: []string{"Cookie", "X-B"},
			AddResponseHeaders: map[string]string{"X-C": "1"}, RemoveResponseHeaders: []string{"Server"},
		})
		cors = NewCORS(CORSOptions{
			Origins: []string{"https://*.a.example"}, Methods: []string{"GET"}, Headers: []string{"*"},
			Expose: []string{"X-A"}, Credentials: true, MaxAge: time.Minute,
		})
	)
	f := func(name, peer, method, fields string) {
		t.Run(name, func(t *testing.T) {
			section := []byte("Host: a.example\r\nOrigin: https://x.a.example\r\nCookie: c=d\r\nX-B: 1\r\n" + fields + "\r\n")
			verb, target, version := []byte(method), []byte("/api/users"), []byte("HTTP/1.1")
			var from netip.AddrPort
			if peer != "" {
				from = netip.MustParseAddrPort(peer)
			}
			mallocs.None(t, t.Name(), 50_000, func() {
				x := exchange.Acquire()
				if x.Request.ParseParts(verb, target, version, section, &wire.Limits{}) != wire.NoFault {
					t.Fatal("the request is not valid")
				}
				x.Peer, x.Path = from, x.Request.Path
				identity.Before(x)
				if access.Before(x) && !cors.Preflight(x) {
					rewrite.Before(x)
					identity.Forward(x)
					headers.Request(x)
					x.Own(200).AddString("Server", "origin")
				}
				cors.After(x)
				headers.Response(x)
				exchange.Release(x)
			})
		})
	}
	f("untrusted", "[2001:db8::1]:1", "GET", "X-Forwarded-For: a\r\n")
	f("trusted", "10.0.0.1:1", "GET", "X-Forwarded-For: 192.0.2.1, 10.0.0.2\r\nX-Request-Id: a\r\nTraceparent: "+parent+"\r\n")
	f("garbage", "10.0.0.1:1", "GET", "X-Forwarded-For: [fe80::1%eth0]x\r\nX-Request-Id: \"\r\nTraceparent: 00\r\n")
	f("preflight", "192.0.2.1:1", "OPTIONS", "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-a\r\n")
	f("denied", "10.9.0.1:1", "GET", "")
	f("unix", "", "GET", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n")
}

func BenchmarkIdentity(b *testing.B) {
	d := NewIdentity(prefixes(b, "10.0.0.0/8"), nil)
	verb, target, version := []byte("GET"), []byte("/users"), []byte("HTTP/1.1")
	section := []byte("Host: a.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	peer := netip.MustParseAddrPort("192.0.2.1:1")
	for _, stages := range []bool{false, true} {
		name := "parse"
		if stages {
			name = "parse+identity"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				x := exchange.Acquire()
				_ = x.Request.ParseParts(verb, target, version, section, &wire.Limits{})
				x.Peer, x.Path = peer, x.Request.Path
				if stages {
					d.Before(x)
					d.Forward(x)
				}
				exchange.Release(x)
			}
		})
	}
}
