package admin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/admin"
	"gateway/listener"
	"gateway/proxy"
)

const (
	full = "operators-0123456789"
	read = "readers-0123456789"
)

// guarded is a gateway with one more admin server.
func guarded(t *testing.T, a admin.Access) (p *operated, s *admin.Server) {
	t.Helper()
	p = operate(t, "[[route]]\nrespond = {}\n")
	s, err := admin.Listen("127.0.0.1:0", a, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Serve(p.Gateway)
	return p, s
}

func TestTokensOpenWhatTheyMay(t *testing.T) {
	_, s := guarded(t, admin.Access{All: true, Profiles: true, Token: full, ReadToken: read})
	const public, looking, doing = "stranger", "reader", "operator"
	for path, least := range map[string]string{
		"GET /livez": public, "GET /readyz": public, "GET /": public, "GET /dashboard/app.js": public,
		"GET /metrics": looking, "GET /healthz": looking, "GET /status": looking, "GET /history": looking, "GET /events": looking,
		"GET /config": doing, "GET /debug/pprof/": doing, "GET /debug/pprof/heap": doing, "GET /debug/pprof/cmdline": doing,
		"POST /reload": doing, "POST /drain": doing, "POST /disable": doing, "POST /enable": doing, "POST /weight": doing,
	} {
		method, path, _ := strings.Cut(path, " ")
		for _, c := range []struct{ who, field string }{
			{public, ""}, {public, "Authorization: Bearer"}, {public, "Authorization: Bearer wrong-0123456789"},
			{public, "Authorization: Basic " + full}, {public, "Authorization: " + full}, {public, "Authorization: Bearer " + full + "x"},
			{public, "Authorization: Bearer " + full[:len(full)-1]},
			{looking, "Authorization: Bearer " + read}, {doing, "Authorization: Bearer " + full}, {doing, "Authorization: bearer " + full},
		} {
			fields := []string{}
			if c.field != "" {
				fields = append(fields, c.field)
			}
			r := ask(t, method, s.Address(), path, fields...)
			rank := map[string]int{public: 0, looking: 1, doing: 2}
			switch {
			case rank[c.who] >= rank[least]:
				if r.StatusCode == 401 || r.StatusCode == 403 {
					t.Errorf("%s %s with %q: status %d", method, path, c.field, r.StatusCode)
				}
			case c.who == public:
				if r.StatusCode != 401 || r.Header.Get("WWW-Authenticate") != `Bearer realm="gateway"` || !strings.Contains(r.body, "Authorization: Bearer TOKEN") {
					t.Errorf("%s %s with %q: status %d, %s", method, path, c.field, r.StatusCode, r.body)
				}
			default:
				if r.StatusCode != 403 || !strings.Contains(r.body, "may only read") {
					t.Errorf("%s %s with %q: status %d, %s", method, path, c.field, r.StatusCode, r.body)
				}
			}
		}
	}
	// Where a token is needed, any name will do: somebody else's page has none.
	if r := ask(t, "GET", s.Address(), "/status", "Host: gateway.internal", "Authorization: Bearer "+read); r.StatusCode != 200 {
		t.Errorf("another name: status %d", r.StatusCode)
	}
	if r := ask(t, "POST", s.Address(), "/reload", "Origin: https://evil.example", "Authorization: Bearer "+full); r.StatusCode != 403 {
		t.Errorf("a page of another site with a token: status %d", r.StatusCode)
	}
}

func TestReadTokenAloneLetsNobodyChangeAnything(t *testing.T) {
	_, s := guarded(t, admin.Access{All: true, Profiles: true, ReadToken: read})
	for _, token := range []string{"", read} {
		if r := ask(t, "POST", s.Address(), "/reload", "Authorization: Bearer "+token); r.StatusCode != 401 && r.StatusCode != 403 {
			t.Errorf("token %q: status %d", token, r.StatusCode)
		}
	}
}

func TestTokensChangeWhileTheServerRuns(t *testing.T) {
	_, s := guarded(t, admin.Access{All: true, Token: full})
	status := func(token string) int {
		return ask(t, "GET", s.Address(), "/status", "Authorization: Bearer "+token).StatusCode
	}
	if got := status(full); got != 200 {
		t.Errorf("status %d", got)
	}
	s.Offer(admin.Access{All: true, Token: "another-0123456789"})
	if old, now := status(full), status("another-0123456789"); old != 401 || now != 200 {
		t.Errorf("the old token: status %d, the new one: %d", old, now)
	}
}

func TestProfilesCanBeOff(t *testing.T) {
	_, s := guarded(t, admin.Access{All: true})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile", "/debug/pprof/cmdline"} {
		if r := ask(t, "GET", s.Address(), path); r.StatusCode != 404 {
			t.Errorf("%s: status %d", path, r.StatusCode)
		}
	}
}

func TestPagesOfOtherSitesCannotEvenAsk(t *testing.T) {
	_, s := guarded(t, everything)
	for site, want := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 200, "none": 200} {
		if r := ask(t, "GET", s.Address(), "/debug/pprof/cmdline", "Sec-Fetch-Site: "+site); r.StatusCode != want {
			t.Errorf("%s: status %d, want %d", site, r.StatusCode, want)
		}
	}
}

func TestPageIsStrictAboutWhatItLoads(t *testing.T) {
	_, s := guarded(t, everything)
	r := ask(t, "GET", s.Address(), "/", "Accept: text/html,*/*;q=0.8")
	policy := r.Header.Get("Content-Security-Policy")
	if r.StatusCode != 200 || !strings.HasPrefix(r.body, "<!doctype html>") || !strings.Contains(policy, "default-src 'none'") ||
		!strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("status %d, policy %q", r.StatusCode, policy)
	}
	for _, text := range []string{"http:", "https:", "style=", "onclick", "<script>"} {
		if strings.Contains(r.body, text) {
			t.Errorf("the page has %q in it", text)
		}
	}
	for _, path := range []string{"/dashboard/app.js", "/dashboard/style.css", "/dashboard/icon.svg"} {
		r := ask(t, "GET", s.Address(), path)
		tag := r.Header.Get("ETag")
		if r.StatusCode != 200 || r.Header.Get("X-Content-Type-Options") != "nosniff" || tag == "" || strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: status %d, %v", path, r.StatusCode, r.Header)
		}
		if r := ask(t, "GET", s.Address(), path, "If-None-Match: "+tag); r.StatusCode != 304 {
			t.Errorf("%s again: status %d", path, r.StatusCode)
		}
	}
	if r := ask(t, "GET", s.Address(), "/dashboard/nothing.js"); r.StatusCode != 404 {
		t.Errorf("status %d", r.StatusCode)
	}
}

// authority signs certificates and writes them to files.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("authority", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign makes name.pem and name.key.
func (a *authority) sign(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(a.file(name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func TestClientCertificates(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	a.sign("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	for _, one := range []*authority{a, stranger} {
		one.sign("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	}
	keys, err := listener.LoadKeys(listener.TLS{
		Certificates: []listener.Certificate{{Cert: a.file("server.pem"), Key: a.file("server.key")}}, ClientCA: a.file("authority.pem"),
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	_, s := guarded(t, admin.Access{All: true, Keys: keys})
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	get := func(client *authority) (int, error) {
		c := &tls.Config{RootCAs: roots}
		if client != nil {
			pair, err := tls.LoadX509KeyPair(client.file("client.pem"), client.file("client.key"))
			if err != nil {
				t.Fatal(err)
			}
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		h := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: c}}
		r, err := h.Get("https://" + s.Address() + "/status")
		if err != nil {
			return 0, err
		}
		defer r.Body.Close()
		var status proxy.Status
		if err := json.NewDecoder(r.Body).Decode(&status); err != nil {
			return 0, err
		}
		return r.StatusCode, nil
	}
	if status, err := get(a); status != 200 {
		t.Errorf("with a certificate: status %d, %v", status, err)
	}
	if status, err := get(nil); err == nil {
		t.Errorf("without a certificate: status %d", status)
	}
	if status, err := get(stranger); err == nil {
		t.Errorf("with a certificate of somebody else: status %d", status)
	}
	conn, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	if text, _ := io.ReadAll(conn); !strings.HasPrefix(string(text), "HTTP/1.0 400 ") {
		t.Errorf("without TLS: %.60q", text)
	}
}

func TestHistoryAndEventsAfterASequence(t *testing.T) {
	p, s := guarded(t, everything)
	var h proxy.History
	p.until("there are samples", func() bool {
		h = proxy.History{}
		ask(t, "GET", s.Address(), "/history").decode(t, &h)
		return h.Last >= 2
	})
	if len(h.Samples) != int(h.Last) || h.Samples[0].Sequence != 1 || h.Interval != 2 {
		t.Errorf("history %+v", h)
	}
	var later proxy.History
	ask(t, "GET", s.Address(), "/history?since=1").decode(t, &later)
	if len(later.Samples) == 0 || later.Samples[0].Sequence != 2 || !later.Started.Equal(h.Started) {
		t.Errorf("later %+v", later)
	}
	ask(t, "POST", s.Address(), "/reload")
	var e proxy.Events
	ask(t, "GET", s.Address(), "/events").decode(t, &e)
	found := false
	for _, one := range e.Events {
		found = found || one.Text == "configuration reloaded" && one.Level == "info"
	}
	if !found {
		t.Errorf("events %+v", e)
	}
	if r := ask(t, "GET", s.Address(), "/history?since=x"); r.StatusCode != 400 {
		t.Errorf("status %d", r.StatusCode)
	}
}
