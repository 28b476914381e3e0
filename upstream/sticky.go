package upstream

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"time"

	"gateway/internal/ascii"
)

// StickyOptions keep clients with the server that answered them first.
type StickyOptions struct {
	// Name of the cookie. Empty: clients go to any server.
	Cookie string `toml:"cookie" default:"gateway_server"`

	// What the cookie is signed with, 16 characters at least. Give the same
	// one to all gateways of a pool. Empty: a random one, and a restart of the
	// gateway ends all sessions.
	Secret string `toml:"secret" secret:"true"`

	// How long clients keep the cookie. 0s: until the browser is closed.
	MaxAge time.Duration `toml:"max_age" default:"0s" min:"0s" max:"8760h"`
}

// UnmarshalTOML reads the name of a cookie, true or false. It accepts any
// table: the configuration reads its keys.
func (o *StickyOptions) UnmarshalTOML(v any) error {
	*o = StickyOptions{}
	switch v := v.(type) {
	case string:
		o.Cookie = v
		return nil
	case bool:
		if v {
			o.Cookie = "gateway_server"
		}
		return nil
	case map[string]any:
		return nil
	}
	return fmt.Errorf(`unexpected %v; want the name of a cookie, true, false or a table such as { cookie = "server", secret = "${STICKY_SECRET}" }`, v)
}

// minSecret is the shortest secret that makes sense, in bytes.
const minSecret = 16

func (o *StickyOptions) check(report func(key, problem string)) {
	if o.Cookie == "" {
		return
	}
	if !ascii.IsToken(o.Cookie) || len(o.Cookie) > 64 {
		report("sticky.cookie", fmt.Sprintf(`unexpected cookie name %q; want letters, digits, "_" and "-"`, o.Cookie))
	}
	if o.Secret != "" && len(o.Secret) < minSecret {
		report("sticky.secret", fmt.Sprintf("has %d characters; want at least %d", len(o.Secret), minSecret))
	}
}

// sticky makes the tokens of a pool's servers. A token is the server's name
// under a key (HMAC-SHA256, cut to 128 bits): it can't be made without the
// key, tells nothing about the server, and is found again by looking it up, so
// that a request costs no hashing.
type sticky struct {
	key  []byte
	pool string
}

func newSticky(o *StickyOptions, pool string, random []byte) *sticky {
	switch {
	case o.Cookie == "":
		return nil
	case o.Secret != "":
		return &sticky{[]byte(o.Secret), pool}
	}
	return &sticky{random, pool}
}

// token is the token of a server by name.
func (k *sticky) token(server string) string {
	if k == nil {
		return ""
	}
	mac := hmac.New(sha256.New, k.key)
	io.WriteString(mac, strconv.Quote(k.pool)+" "+strconv.Quote(server))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// Token is the server's token for sticky sessions, 22 characters that may stand
// in a cookie; "" if the pool has no sticky sessions.
func (s *Server) Token() string { return s.token }

// AppendCookie appends the value of the Set-Cookie field that keeps a client
// with a server of this pool: the whole of it, attributes included. secure is
// whether the client speaks TLS. Allocates nothing beyond what b needs to grow.
func (p *Pool) AppendCookie(b []byte, s *Server, secure bool) []byte {
	o := &p.Options.Sticky
	b = append(b, o.Cookie...)
	b = append(b, '=')
	b = append(b, s.token...)
	b = append(b, "; Path=/; HttpOnly; SameSite=Lax"...)
	if o.MaxAge > 0 {
		b = append(b, "; Max-Age="...)
		b = strconv.AppendInt(b, int64(o.MaxAge/time.Second), 10)
	}
	if secure {
		b = append(b, "; Secure"...)
	}
	return b
}

// sticks finds the server of a token, if it has room and was not tried.
func (set *set) sticks(tried *Tried, token []byte) *Server {
	s := set.tokens[string(token)]
	if s == nil || tried.Has(s) || !s.acquire() {
		return nil
	}
	return s
}
