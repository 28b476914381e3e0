package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"gateway/listener"
)

// Access says what a server offers, and to whom.
type Access struct {
	// All offers every endpoint. Without it there are only metrics and probes,
	// for everybody, whatever the rest says.
	All bool
	// Token is sent by those who may do everything, ReadToken by those who may
	// only look. Without either everybody who can connect may do everything.
	Token, ReadToken string
	// Keys make the server speak TLS; with authorities for clients, only those
	// with a certificate of theirs get so far as to ask. nil for plain HTTP.
	// The caller closes keys that were replaced.
	Keys *listener.Keys
	// Profiles offers /debug/pprof/.
	Profiles bool
}

// role is what somebody may do.
type role uint8

const (
	stranger role = iota // may load the page, which has nothing in it, and ask for life and readiness
	reader               // may look
	operator             // may do everything
)

func (r role) String() string { return [...]string{"stranger", "reader", "operator"}[r] }

// guard lets requests through to those who may make them.
type guard struct {
	tokens  bool // are needed
	hashes  [operator + 1][sha256.Size]byte
	set     [operator + 1]bool
	refused func(r *http.Request, why string)
}

func newGuard(a Access, refused func(*http.Request, string)) *guard {
	g := &guard{tokens: a.Token != "" || a.ReadToken != "", refused: refused}
	for role, token := range map[role]string{operator: a.Token, reader: a.ReadToken} {
		g.hashes[role], g.set[role] = sha256.Sum256([]byte(token)), token != ""
	}
	return g
}

// roleOf finds out who is asking. It takes as long for a wrong token as for
// the right one.
func (g *guard) roleOf(r *http.Request) role {
	if !g.tokens {
		return operator
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	found := stranger
	for _, role := range [...]role{reader, operator} {
		if same := subtle.ConstantTimeCompare(hash[:], g.hashes[role][:]); same == 1 && g.set[role] {
			found = role
		}
	}
	if !strings.EqualFold(scheme, "Bearer") {
		return stranger
	}
	return found
}

// only serves those who are at least of a role.
func (g *guard) only(least role, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		role := g.roleOf(r)
		w.Header().Set("Gateway-Role", role.String())
		// A page of another site can neither read nor change anything, but it
		// could make a browser ask for what is dear.
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
			g.refused(r, "page of another site")
			problem(w, http.StatusForbidden, "pages of other sites may not ask")
			return
		}
		switch {
		case role >= least:
			next(w, r)
		case role == stranger:
			g.refused(r, "no valid token")
			w.Header().Set("WWW-Authenticate", `Bearer realm="gateway"`)
			problem(w, http.StatusUnauthorized, "a token is needed: Authorization: Bearer TOKEN")
		default:
			g.refused(r, "token may only read")
			problem(w, http.StatusForbidden, "this token may only read")
		}
	}
}

// sameOrigin refuses what pages of other sites make a browser send: requests
// that change something, and, where no token is needed, those for a name that
// somebody has made resolve to us. With tokens a page would need one; with TLS
// it would need our certificate.
func (g *guard) sameOrigin(names bool, next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.refused(r, "page of another site")
		problem(w, http.StatusForbidden, "pages of other sites may change nothing")
	}))
	next = protection.Handler(next)
	if !names {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.Trim(host, "[]")
		_, isUnix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr)
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" && host != "" && !isUnix {
			g.refused(r, "unexpected Host")
			problem(w, http.StatusForbidden, fmt.Sprintf("unexpected Host %q; use an address or localhost", host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refusals logs refused requests, at most one a second.
type refusals struct {
	last    atomic.Int64 // Unix seconds
	skipped atomic.Int64
	log     func(msg string, args ...any)
}

func (f *refusals) refused(r *http.Request, why string) {
	now := time.Now().Unix()
	if last := f.last.Load(); last >= now || !f.last.CompareAndSwap(last, now) {
		f.skipped.Add(1)
		return
	}
	f.log("admin request refused", "reason", why, "client", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "skipped", f.skipped.Swap(0))
}
