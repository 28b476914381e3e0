package middleware

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const tokenSecret = "0123456789abcdef0123456789abcdef"

// publicKeys writes keys to one file.
func publicKeys(t testing.TB, keys ...crypto.PublicKey) string {
	t.Helper()
	var text []byte
	for _, k := range keys {
		b, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})...)
	}
	name := filepath.Join(t.TempDir(), "public.pem")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// sign makes a token.
func sign(t testing.TB, method jwt.SigningMethod, key any, claims jwt.MapClaims, header ...string) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for i := 0; i+1 < len(header); i += 2 {
		token.Header[header[i]] = header[i+1]
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTokensLetIn(t *testing.T) {
	rsaKey, err1 := rsa.GenerateKey(rand.Reader, 2048)
	ecKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	wide, err3 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, edKey, err4 := ed25519.GenerateKey(rand.Reader)
	stranger, err5 := rsa.GenerateKey(rand.Reader, 2048)
	for _, err := range []error{err1, err2, err3, err4, err5} {
		if err != nil {
			t.Fatal(err)
		}
	}
	file := publicKeys(t, rsaKey.Public(), ecKey.Public(), wide.Public(), edKey.Public())
	stage := func(change func(o *TokenOptions)) *Token {
		t.Helper()
		o := &TokenOptions{Keys: []string{file}, Issuer: "login", Audience: "api", Leeway: 10 * time.Second}
		change(o)
		s, err := NewToken(o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	with := func(changes ...any) jwt.MapClaims {
		c := jwt.MapClaims{"iss": "login", "aud": []string{"other", "api"}, "sub": "ada", "exp": time.Now().Add(time.Hour).Unix(), "tier": 3, "admin": true, "roles": []string{"a"}}
		for i := 0; i+1 < len(changes); i += 2 {
			if c[changes[i].(string)] = changes[i+1]; changes[i+1] == nil {
				delete(c, changes[i].(string))
			}
		}
		return c
	}
	f := func(s *Token, want string, fields ...string) {
		t.Helper()
		x := ask(t, "192.0.2.1", "GET a /", fields...)
		got := "in"
		if !s.Before(x) {
			got = values(x.Response.Header, "WWW-Authenticate")
			if x.Response.Status != 401 || x.Claims != nil || x.Reason.String() != "unauthenticated" {
				t.Errorf("%v: status %d, claims %v", fields, x.Response.Status, x.Claims)
			}
		}
		if got != want {
			t.Errorf("%q: %s, want %s", fields, got, want)
		}
	}
	const none, invalid = "Bearer", `Bearer error="invalid_token"`
	bearer := func(token string) string { return "Authorization: Bearer " + token }
	s := stage(func(*TokenOptions) {})
	for method, key := range map[jwt.SigningMethod]any{
		jwt.SigningMethodRS256: rsaKey, jwt.SigningMethodRS512: rsaKey, jwt.SigningMethodPS384: rsaKey,
		jwt.SigningMethodES256: ecKey, jwt.SigningMethodES384: wide, jwt.SigningMethodEdDSA: edKey,
	} {
		token := sign(t, method, key, with())
		f(s, "in", bearer(token))
		dot := strings.LastIndexByte(token, '.')
		signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
		if err != nil {
			t.Fatal(err)
		}
		signature[len(signature)/2] ^= 1
		f(s, invalid, bearer(token[:dot+1]+base64.RawURLEncoding.EncodeToString(signature)))
		f(s, invalid, bearer(token[:dot+1]))
		f(s, invalid, bearer(token[:dot]))
	}
	good := sign(t, jwt.SigningMethodES256, ecKey, with())
	f(s, "in", "authorization: bEaReR   "+good)
	f(s, none)
	f(s, none, "Authorization: Basic YTpi")
	f(s, invalid, bearer(""), bearer(good))
	f(s, invalid, bearer(good), bearer(good))
	f(s, invalid, bearer(good+"."+good))
	f(s, invalid, bearer("x"))

	// Other signers, other algorithms, no algorithm.
	f(s, invalid, bearer(sign(t, jwt.SigningMethodRS256, stranger, with())))
	f(s, invalid, bearer(sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, with())))
	public, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f(s, invalid, bearer(sign(t, jwt.SigningMethodHS256, public, with()))) // the public key as a secret
	f(s, invalid, bearer(sign(t, jwt.SigningMethodES256, ecKey, with(), "crit", "exp")))
	f(s, invalid, bearer(sign(t, jwt.SigningMethodES256, ecKey, with(), "alg", "ES384")))

	// Claims.
	now := time.Now()
	for _, c := range []struct {
		want    string
		changes []any
	}{
		{invalid, []any{"exp", nil}}, {invalid, []any{"exp", now.Add(-time.Minute).Unix()}}, {"in", []any{"exp", now.Add(-time.Second).Unix()}},
		{invalid, []any{"exp", "tomorrow"}}, {invalid, []any{"nbf", now.Add(time.Minute).Unix()}}, {"in", []any{"nbf", now.Unix()}},
		{invalid, []any{"iss", "others"}}, {invalid, []any{"iss", nil}}, {invalid, []any{"aud", "other"}}, {invalid, []any{"aud", nil}}, {"in", []any{"aud", "api"}},
	} {
		f(s, c.want, bearer(sign(t, jwt.SigningMethodES256, ecKey, with(c.changes...))))
	}
	guests := stage(func(o *TokenOptions) { o.Optional = true })
	f(guests, "in")
	f(guests, "in", bearer(good))
	f(guests, invalid, bearer(good[:len(good)-8]))
	shared := stage(func(o *TokenOptions) { o.Keys, o.Secret, o.Issuer, o.Audience = nil, tokenSecret, "", "" })
	f(shared, "in", bearer(sign(t, jwt.SigningMethodHS256, []byte(tokenSecret), with("iss", nil, "aud", nil))))
	f(shared, invalid, bearer(sign(t, jwt.SigningMethodHS256, []byte(tokenSecret+"x"), with())))
	f(shared, invalid, bearer(good))

	x := ask(t, "192.0.2.1", "GET a /", bearer(good))
	s.Before(x)
	for name, want := range map[string]string{"sub": "ada", "tier": "3", "admin": "true", "roles": "", "none": ""} {
		if got := string(s.Claim(x, name)); got != want {
			t.Errorf("claim %s is %q, want %q", name, got, want)
		}
	}
	if s := (*Token)(nil); !s.Before(x) {
		t.Error("a stage that is off refuses")
	}
}

func TestKeysOfTokensAreChecked(t *testing.T) {
	small := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	narrow, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		publicKeys(t, small): "want at least 2048", publicKeys(t, narrow.Public()): "want RSA, ECDSA", text: "no PEM block", text + "s": "no such file",
	} {
		if _, err := NewToken(&TokenOptions{Keys: []string{name}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	for _, c := range []struct {
		o    TokenOptions
		want string
	}{
		{TokenOptions{}, "nothing to verify"}, {TokenOptions{Secret: "short"}, "secret: too short"},
		{TokenOptions{Secret: tokenSecret}, ""}, {TokenOptions{Keys: []string{"a"}}, ""},
	} {
		if got := problems(c.o.Check); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// FuzzToken: whatever comes, only what the key has signed is let in.
func FuzzToken(f *testing.F) {
	s, err := NewToken(&TokenOptions{Secret: tokenSecret})
	if err != nil {
		f.Fatal(err)
	}
	// The same in each of the processes that take part, whenever they began.
	expiry := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	good := sign(f, jwt.SigningMethodHS256, []byte(tokenSecret), jwt.MapClaims{"sub": "a", "exp": expiry.Unix()})
	parts := strings.Split(good, ".")
	f.Add(good)
	f.Add(parts[0] + ".." + parts[2])
	f.Add("eyJhbGciOiJub25lIn0." + parts[1] + ".")
	f.Fuzz(func(t *testing.T, token string) {
		if strings.ContainsAny(token, "\r\n\x00") || token != strings.TrimSpace(token) {
			return
		}
		for i := range len(token) {
			if token[i] < ' ' || token[i] == 0x7f {
				return
			}
		}
		if x := ask(t, "", "GET a /", "Authorization: Bearer "+token); s.Before(x) && token != good {
			t.Fatalf("%q is let in", token)
		}
	})
}
