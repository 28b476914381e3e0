package middleware

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gateway/exchange"
	"gateway/internal/ascii"
	"gateway/internal/clock"
	"gateway/wire"
)

// TokenOptions say which JSON Web Tokens (RFC 7519) let clients in. A token
// comes as "Authorization: Bearer TOKEN" (RFC 6750), and the origin gets it too.
// It must be signed with one of the keys, have a time at which it expires (exp)
// that has not come, and none before which it is not valid (nbf) that has not
// come either. Who has no such token is answered 401. Limits may count by the
// token's claims.
type TokenOptions struct {
	// Files with public keys or certificates in PEM form, as many in each as
	// there are: RSA of at least 2048 bits for the algorithms RS256, RS384,
	// RS512, PS256, PS384 and PS512; ECDSA on P-256, P-384 or P-521 for ES256,
	// ES384 or ES512; Ed25519 for EdDSA. They are read when the configuration
	// is loaded.
	Keys []string `toml:"keys"`

	// A secret shared with who signs, for the algorithms HS256, HS384 and
	// HS512: at least 32 bytes, and random, or tokens can be forged.
	Secret string `toml:"secret" secret:"true"`

	// Who must have issued the token: its claim iss. Any issuer when empty.
	Issuer string `toml:"issuer"`

	// For whom the token must be meant: one of its claim aud. Anybody when
	// empty, so that tokens for other services of the same issuer let in too.
	Audience string `toml:"audience"`

	// How much clocks may differ: tokens are accepted so long after they have
	// expired, and before they are valid.
	Leeway time.Duration `toml:"leeway" default:"30s" min:"0s" max:"10m"`

	// Let requests without a token pass, for a route that knows guests. A
	// token that is not valid is refused all the same.
	Optional bool `toml:"optional" default:"false"`
}

const minSecret = 32 // bytes: RFC 7518 section 3.2

// Check reports options with which no token can be verified.
func (o *TokenOptions) Check(report func(key, problem string)) {
	switch {
	case len(o.Keys) == 0 && o.Secret == "":
		report("", `nothing to verify tokens with; want keys = ["public.pem"] or secret = "${file:/run/secrets/jwt}"`)
	case o.Secret != "" && len(o.Secret) < minSecret:
		report("secret", fmt.Sprintf("too short to be safe; want at least %d bytes", minSecret))
	}
}

// Token lets clients in by the JSON Web Token that they bring. Verifying a
// signature costs tens of microseconds and allocates.
type Token struct {
	parser   *jwt.Parser
	keys     map[string][]jwt.VerificationKey // by algorithm
	optional bool
}

// NewToken builds the stage, nil without options. The error is that of a file
// with keys.
func NewToken(o *TokenOptions) (*Token, error) {
	if o == nil {
		return nil, nil
	}
	t := &Token{keys: map[string][]jwt.VerificationKey{}, optional: o.Optional}
	for _, name := range o.Keys {
		if err := t.read(name); err != nil {
			return nil, err
		}
	}
	if o.Secret != "" {
		t.add([]byte(o.Secret), "HS256", "HS384", "HS512")
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(sorted(t.keys)), jwt.WithExpirationRequired(), jwt.WithLeeway(o.Leeway),
		jwt.WithJSONNumber(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(clock.Wall),
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	if o.Audience != "" {
		options = append(options, jwt.WithAudience(o.Audience))
	}
	t.parser = jwt.NewParser(options...)
	return t, nil
}

// add makes a key one of those of its algorithms, and of no other: which kind a
// key is, a token cannot choose (RFC 8725 section 3.1).
func (t *Token) add(key jwt.VerificationKey, algorithms ...string) {
	for _, a := range algorithms {
		t.keys[a] = append(t.keys[a], key)
	}
}

// read adds the keys of a file.
func (t *Token) read(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	found := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if err := t.addPEM(block); err != nil {
			return fmt.Errorf("read keys of %q: %w", name, err)
		}
		found++
	}
	if found == 0 {
		return fmt.Errorf("read keys of %q: no PEM block in it; want -----BEGIN PUBLIC KEY-----", name)
	}
	return nil
}

func (t *Token) addPEM(block *pem.Block) error {
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = c.PublicKey
		}
	default:
		return fmt.Errorf("unexpected %q; want a public key or a certificate", block.Type)
	}
	if err != nil {
		return err
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Errorf("an RSA key of %d bits; want at least 2048", k.N.BitLen())
		}
		t.add(k, "RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
		return nil
	case *ecdsa.PublicKey:
		if a := map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[k.Curve.Params().BitSize]; a != "" {
			t.add(k, a)
			return nil
		}
	case ed25519.PublicKey:
		t.add(k, "EdDSA")
		return nil
	}
	return errors.New("a key of a kind that no algorithm uses; want RSA, ECDSA on P-256, P-384 or P-521, or Ed25519")
}

// Before reports whether the client may go on, and keeps what it has proved; if
// not, the answer is made.
func (t *Token) Before(x *exchange.Exchange) bool {
	if t == nil {
		return true
	}
	token, state := bearer(&x.Request.Header)
	if state == noToken && t.optional {
		return true
	}
	if state == oneToken {
		var claims jwt.MapClaims
		if _, err := t.parser.ParseWithClaims(string(token), &claims, t.key); err == nil {
			x.Claims = claims
			return true
		}
	}
	x.Fail(exchange.Unauthenticated)
	challenge := "Bearer"
	if state != noToken { // RFC 6750 section 3.1
		challenge = `Bearer error="invalid_token"`
	}
	x.Response.Header.AddIDString(wire.WWWAuthenticate, challenge)
	return false
}

// key finds those that may have signed a token.
func (t *Token) key(token *jwt.Token) (any, error) {
	// RFC 7515 section 4.1.11: what must be understood, and is not.
	if _, critical := token.Header["crit"]; critical {
		return nil, errors.New("an extension that is critical")
	}
	return jwt.VerificationKeySet{Keys: t.keys[token.Method.Alg()]}, nil
}

// tokenState is what the fields of a request say about tokens.
type tokenState uint8

const (
	noToken tokenState = iota
	oneToken
	strangeToken // more than one field
)

// bearer is the token of the request (RFC 6750 section 2.1).
func bearer(h *wire.Header) ([]byte, tokenState) {
	if !h.Has(wire.Authorization) {
		return nil, noToken
	}
	value := only(h, wire.Authorization)
	if value == nil {
		return nil, strangeToken
	}
	const scheme = "bearer "
	if len(value) < len(scheme) || !ascii.EqualFold(value[:len(scheme)], scheme) {
		return nil, noToken
	}
	return ascii.TrimSpace(value[len(scheme):]), oneToken
}

// Claim is a claim of the token with which the client proved who it is, as
// text; nil without one, and for what is neither text, number nor truth.
func (t *Token) Claim(x *exchange.Exchange, name string) []byte {
	switch v := x.Claims[name].(type) {
	case string:
		return []byte(v)
	case json.Number:
		return []byte(v)
	case bool:
		return strconv.AppendBool(nil, v)
	}
	return nil
}
