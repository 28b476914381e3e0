package upstream

import (
	"context"
	"strings"
	"testing"

	"gateway/internal/mallocs"
)

func stickyTo(secret string, weights ...int) *Options {
	o := weighted("round_robin", weights...)
	o.Sticky = StickyOptions{Cookie: "server", Secret: secret}
	return o
}

func TestTokenFindsItsServer(t *testing.T) {
	for _, balance := range policies {
		o := stickyTo("0123456789abcdef", 1, 1, 1)
		o.Balance, o.MaxConnections = balance, 2
		p := build(t, o)
		c := p.Servers()[2]
		in := Intent{Token: []byte(c.Token())}
		for range 5 {
			s, _ := p.PickFor(new(Tried), in)
			if s != c {
				t.Fatalf("%s: picked %s", balance, s.Name)
			}
			s.Done(good)
		}
		// Others are taken when it has failed, is full, or out of use.
		var tried Tried
		tried.Add(c)
		other := func(why string, tried *Tried) {
			t.Helper()
			s, verdict := p.PickFor(tried, in)
			if s == nil || s == c {
				t.Fatalf("%s, %s: %v, %v", balance, why, s, verdict)
			}
			s.Done(good)
		}
		other("tried", &tried)
		p.PickFor(new(Tried), in)
		p.PickFor(new(Tried), in)
		other("full", new(Tried))
		c.Done(good)
		c.Done(good)
		if err := p.registry.SetOrder("test", c.Name, Drained); err != nil {
			t.Fatal(err)
		}
		other("drained", new(Tried))
	}
}

func TestTokensAreOpaqueAndSigned(t *testing.T) {
	token := func(p *Pool, i int) string { return p.Servers()[i].Token() }
	a, b := build(t, stickyTo("0123456789abcdef", 1, 1)), build(t, stickyTo("0123456789abcdef", 3, 1))
	if token(a, 0) != token(b, 0) || token(a, 0) == token(a, 1) {
		t.Error("gateways with the same secret do not agree")
	}
	c, d := build(t, stickyTo("", 1, 1)), build(t, stickyTo("fedcba9876543210", 1, 1))
	if token(c, 0) == token(a, 0) || token(d, 0) == token(a, 0) || token(build(t, stickyTo("", 1)), 0) == token(c, 0) {
		t.Error("tokens do not depend on the secret")
	}
	if len(token(a, 0)) != 22 || strings.Contains(token(a, 0), "127") {
		t.Errorf("token %q", token(a, 0))
	}
	forged := []byte(token(a, 1))
	forged[0] ^= 1
	got := ""
	for range 4 {
		s, _ := a.PickFor(new(Tried), Intent{Token: forged})
		got += letter(s)
		s.Done(good)
	}
	if got != "abab" {
		t.Errorf("a forged token gave %s, want abab", got)
	}
	if s := build(t, weighted("p2c", 1)).Servers()[0]; s.Token() != "" {
		t.Errorf("token %q without sticky sessions", s.Token())
	}
	other, err := a.registry.Build(context.Background(), "other", stickyTo("0123456789abcdef", 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if token(other, 0) == token(a, 0) {
		t.Error("tokens of one pool hold for another")
	}
}

func TestBackupsKeepNobody(t *testing.T) {
	o := stickyTo("", 1, 1)
	o.Servers[1].Backup = true
	p := build(t, o)
	in := Intent{Token: []byte(p.Servers()[1].Token())}
	if s, _ := p.PickFor(new(Tried), in); letter(s) != "a" {
		t.Error("a backup is used although another server is there")
	}
	if err := p.registry.SetOrder("test", p.Servers()[0].Name, Drained); err != nil {
		t.Fatal(err)
	}
	if s, _ := p.PickFor(new(Tried), in); letter(s) != "b" {
		t.Error("the backup is not used")
	}
}

func TestStickyCookie(t *testing.T) {
	o := stickyTo("0123456789abcdef", 1)
	p := build(t, o)
	s := p.Servers()[0]
	if got, want := string(p.AppendCookie(nil, s, false)), "server="+s.Token()+"; Path=/; HttpOnly; SameSite=Lax"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	o.Sticky.MaxAge = 3600e9
	p = build(t, o)
	if got := string(p.AppendCookie([]byte("> "), s, true)); !strings.HasPrefix(got, "> server=") || !strings.HasSuffix(got, "; Max-Age=3600; Secure") {
		t.Error(got)
	}
}

func TestStickyPicksAllocateNothing(t *testing.T) {
	p := build(t, stickyTo("", 1, 1, 1))
	tokens := [][]byte{[]byte(p.Servers()[1].Token()), []byte("nonsense")}
	cookie := make([]byte, 0, 200)
	mallocs.None(t, t.Name(), 20_000, func() {
		for _, token := range tokens {
			s, _ := p.PickFor(new(Tried), Intent{Token: token})
			cookie = p.AppendCookie(cookie[:0], s, true)
			s.Done(good)
		}
	})
}
