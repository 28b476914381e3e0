package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/load"
	"gateway/internal/testenv"
)

// kitchen is where recipes of docs/cookbook.md are tried: two origins, and
// gateways in front of them.
type kitchen struct {
	t       *testing.T
	a, b    *httptest.Server // answer with their names
	status  atomic.Int32     // of a
	asked   atomic.Int32     // requests at both but for health checks
	recipes []string
}

func newKitchen(t *testing.T) *kitchen {
	text, err := os.ReadFile("../../docs/cookbook.md")
	if err != nil {
		t.Fatal(err)
	}
	k := &kitchen{t: t}
	k.status.Store(200)
	for _, m := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		k.recipes = append(k.recipes, m[1])
	}
	origin := func(name string, status func() int) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/health" {
				return
			}
			k.asked.Add(1)
			w.WriteHeader(status())
			io.WriteString(w, name)
		}))
		t.Cleanup(s.Close)
		return s
	}
	k.a = origin("a", func() int { return int(k.status.Load()) })
	k.b = origin("b", func() int { return 200 })
	return k
}

// dish is a recipe that runs.
type dish struct {
	*child
	plain, secure string // addresses of the listeners
}

// cook runs a recipe, counted from 1.
func (k *kitchen) cook(recipe int, environment ...string) *dish {
	k.t.Helper()
	c := prepare(k.t)
	c.write(k.recipes[recipe-1])
	d := &dish{child: c, plain: load.FreeAddress(k.t), secure: load.FreeAddress(k.t)}
	c.Cmd = exec.Command(binary, "run", "--config", c.config)
	c.Env = append(os.Environ(), append(environment, "HTTP="+d.plain, "HTTPS="+d.secure, "PROBES=127.0.0.1:0",
		"APP="+k.a.Listener.Addr().String(), "APP2="+k.b.Listener.Addr().String())...)
	c.start()
	c.line("msg=listening")
	return d
}

// response is an answer with its body read.
type response struct {
	*http.Response
	body string
}

// send sends a request; fields are names and values in turn.
func (d *dish) send(method, url string, fields ...string) response {
	d.t.Helper()
	client := http.Client{
		Timeout:       patience,
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if strings.HasPrefix(url, "/") {
		url = "http://" + d.plain + url
	}
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Host = "site.example"
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	resp, err := client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return response{resp, string(body)}
}

// expect fails the test unless the status is right.
func (r response) expect(t *testing.T, what string, status int) response {
	t.Helper()
	if r.StatusCode != status {
		t.Errorf("%s: status %d, want %d; body %.200q", what, r.StatusCode, status, r.body)
	}
	return r
}

func TestCookbook(t *testing.T) {
	k := newKitchen(t)
	recipes := []struct {
		name string
		try  func(t *testing.T, k *kitchen)
	}{
		{"a site with TLS", func(t *testing.T, k *kitchen) {
			dir := t.TempDir()
			writeCertificate(t, filepath.Join(dir, "site.pem"), filepath.Join(dir, "site.key"))
			d := k.cook(1, "CERTS="+dir)
			r := d.send("GET", "/a?b").expect(t, "plain", 308)
			if to := r.Header.Get("Location"); to != "https://site.example/a?b" {
				t.Errorf("moved to %q", to)
			}
			r = d.send("GET", "https://"+d.secure+"/").expect(t, "TLS", 200)
			if r.Header.Get("Strict-Transport-Security") == "" {
				t.Error("no Strict-Transport-Security")
			}
		}},
		{"limits by key", func(t *testing.T, k *kitchen) {
			d := k.cook(2)
			r := d.send("GET", "/v1/x", "X-Api-Key", "1").expect(t, "the first request", 200)
			if !strings.Contains(r.Header.Get("RateLimit"), `"api"`) {
				t.Errorf("RateLimit %q", r.Header.Get("RateLimit"))
			}
			d.until("the key has used its burst up", func() bool {
				r = d.send("GET", "/v1/x", "X-Api-Key", "1")
				return r.StatusCode == 429
			})
			if r.Header.Get("Retry-After") == "" || !strings.Contains(r.body, "api") {
				t.Errorf("refused with %v %q", r.Header, r.body)
			}
			d.send("GET", "/v1/x", "X-Api-Key", "2").expect(t, "another key", 200)
			d.send("GET", "/v2").expect(t, "another path", 404)
		}},
		{"behind a balancer", func(t *testing.T, k *kitchen) {
			d := k.cook(3)
			d.send("GET", "/admin/x", "X-Forwarded-For", "192.0.2.7").expect(t, "from the office", 200)
			d.send("GET", "/admin/x", "X-Forwarded-For", "203.0.113.7").expect(t, "from elsewhere", 403)
			d.send("GET", "/admin/x", "X-Forwarded-For", "192.0.2.7, 203.0.113.7").expect(t, "pretending", 403)
			d.send("GET", "/", "X-Forwarded-For", "203.0.113.7").expect(t, "another path", 200)
		}},
		{"a cache", func(t *testing.T, k *kitchen) {
			d := k.cook(4)
			before := k.asked.Load()
			for range 3 {
				d.send("GET", "/page").expect(t, "a page", 200)
			}
			if n := k.asked.Load() - before; n != 1 {
				t.Errorf("%d requests reach the origin", n)
			}
			if s := d.send("GET", "/page").Header.Get("Cache-Status"); !strings.Contains(s, "hit") {
				t.Errorf("Cache-Status %q", s)
			}
			d.send("POST", "/page").expect(t, "a change", 200)
			if n := k.asked.Load() - before; n != 2 {
				t.Errorf("%d requests reach the origin", n)
			}
		}},
		{"a canary", func(t *testing.T, k *kitchen) {
			d := k.cook(5)
			if r := d.send("GET", "/", "X-Canary", "1").expect(t, "a tester", 200); r.body != "b" {
				t.Errorf("a tester gets %q", r.body)
			}
			first := d.send("GET", "/").expect(t, "a client", 200).body
			for range 5 {
				if r := d.send("GET", "/"); r.body != first {
					t.Errorf("a client gets %q after %q", r.body, first)
				}
			}
		}},
		{"sessions", func(t *testing.T, k *kitchen) {
			d := k.cook(6)
			r := d.send("GET", "/chat/").expect(t, "a client", 200)
			cookie, _, _ := strings.Cut(r.Header.Get("Set-Cookie"), ";")
			if !strings.HasPrefix(cookie, "chat_server=") {
				t.Fatalf("cookie %q", cookie)
			}
			for range 5 {
				if again := d.send("GET", "/chat/", "Cookie", cookie); again.body != r.body {
					t.Errorf("the session has moved from %q to %q", r.body, again.body)
				}
			}
		}},
		{"a database", func(t *testing.T, k *kitchen) {
			d := k.cook(7, "DATABASE_URL=postgres://app@"+load.FreeAddress(t)+"/app")
			d.until("changes are refused", func() bool { return d.send("POST", "/").StatusCode == 503 })
			d.send("GET", "/").expect(t, "a read", 200)
		}},
		{"failing servers", func(t *testing.T, k *kitchen) {
			k.status.Store(503)
			defer k.status.Store(200)
			d := k.cook(8)
			for range 10 {
				d.send("GET", "/").expect(t, "beside a server that fails", 200)
			}
		}},
		{"tokens", func(t *testing.T, k *kitchen) {
			d := k.cook(9)
			r := d.send("OPTIONS", "/v1/x", "Origin", "https://app.example.com", "Access-Control-Request-Method", "PUT")
			if r.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
				t.Errorf("preflight: %d %v", r.StatusCode, r.Header)
			}
			d.send("GET", "/v1/x").expect(t, "without a token", 401)
			token := signed(`{"sub":"ada","aud":"api","exp":` + fmt.Sprint(time.Now().Add(time.Hour).Unix()) + `}`)
			d.send("GET", "/v1/x", "Authorization", "Bearer "+token).expect(t, "with a token", 200)
			d.send("GET", "/v1/x", "Authorization", "Bearer "+token+"x").expect(t, "with a forged one", 401)
			d.send("GET", "/").expect(t, "another path", 404)
		}},
		{"several gateways", func(t *testing.T, k *kitchen) {
			redis := testenv.StartRedis(t)
			one, other := k.cook(10, "REDIS_URL="+redis.URL()), k.cook(10, "REDIS_URL="+redis.URL())
			// What one has stored reaches Redis in the background.
			one.until("the other one answers from the cache that they share", func() bool {
				path := fmt.Sprintf("/%d", time.Now().UnixNano())
				one.send("GET", path)
				time.Sleep(20 * time.Millisecond)
				before := k.asked.Load()
				return other.send("GET", path).StatusCode == 200 && k.asked.Load() == before
			})
		}},
	}
	if len(recipes) != len(k.recipes) {
		t.Fatalf("%d recipes in the book, %d are tried", len(k.recipes), len(recipes))
	}
	for _, r := range recipes {
		t.Run(r.name, func(t *testing.T) {
			k.t = t
			r.try(t, k)
		})
	}
}

// signed is a token of HS256 with the secret of the cookbook.
func signed(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, []byte("0123456789abcdef0123456789abcdef"))
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil))
}

// writeCertificate makes a certificate that nobody trusts.
func writeCertificate(t *testing.T, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
