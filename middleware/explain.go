package middleware

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
)

// ExplainOptions let those who know a secret ask, with a signed field of a
// request on live traffic, why it is answered as it is: the table [explain].
type ExplainOptions struct {
	// What the field Gateway-Explain of a request is signed with; "gateway
	// explain --sign URL" writes such a field. The answer to a request that
	// carries one has a field Gateway-Explanation: the route, why earlier routes
	// did not match, limits, cache, server and coding. At least 32 random bytes;
	// whoever knows it learns how the gateway is configured. Off when empty: the
	// field means nothing then.
	Secret string `toml:"secret" secret:"true"`

	// How old a signature may be, or how far ahead of the gateway's clock: for so
	// long it can be used again, for the same method, host and target.
	Window time.Duration `toml:"window" default:"1m" min:"1s" max:"1h"`
}

// Check reports a secret that can be guessed.
func (o *ExplainOptions) Check(report func(key, problem string)) {
	if o.Secret != "" && len(o.Secret) < minSecret {
		report("secret", fmt.Sprintf("too short to be safe; want at least %d bytes", minSecret))
	}
}

// Names of the fields with which a request asks to be explained, and is.
const (
	ExplainField     = "Gateway-Explain"
	ExplanationField = "Gateway-Explanation"
)

// Explain tells which requests ask to be explained, and may. Nil: none do.
type Explain struct {
	secret []byte
	window int64 // seconds
}

// NewExplain builds the stage, nil without a secret.
func NewExplain(o ExplainOptions) *Explain {
	if o.Secret == "" {
		return nil
	}
	return &Explain{secret: []byte(o.Secret), window: int64(o.Window / time.Second)}
}

// Asked takes the field off the request, and reports whether there was one
// with a valid signature. It allocates nothing for requests without it.
func (e *Explain) Asked(x *exchange.Exchange) bool {
	if e == nil {
		return false
	}
	h := &x.Request.Header
	value := h.Find(ExplainField)
	if value == nil {
		return false
	}
	valid := e.verify(value, x.Request.MethodText, x.Request.Host, x.Request.Target)
	h.DelName([]byte(ExplainField)) // nobody else may use it
	return valid
}

func (e *Explain) verify(value, method, host, target []byte) bool {
	at, sum, found := bytes.Cut(value, []byte(";mac="))
	at, begun := bytes.CutPrefix(at, []byte("t="))
	if !found || !begun || len(at) > 12 {
		return false
	}
	t, err := strconv.ParseInt(string(at), 10, 64)
	if now := clock.Wall().Unix(); err != nil || t < now-e.window || t > now+e.window {
		return false
	}
	given := make([]byte, hex.DecodedLen(len(sum)))
	if _, err := hex.Decode(given, sum); err != nil {
		return false
	}
	return hmac.Equal(given, e.mac(method, host, target, t))
}

// mac signs what a request asks for, at a time in seconds since 1970:
// HMAC-SHA256 over the four parts, each on a line, none of which holds one.
func (e *Explain) mac(method, host, target []byte, t int64) []byte {
	m := hmac.New(sha256.New, e.secret)
	fmt.Fprintf(m, "gateway-explain\n%s\n%s\n%s\n%d", method, host, target, t)
	return m.Sum(nil)
}

// Sign is the value of the field for a request, as of a moment.
func (e *Explain) Sign(x *exchange.Exchange, now time.Time) string {
	t := now.Unix()
	return fmt.Sprintf("t=%d;mac=%x", t, e.mac(x.Request.MethodText, x.Request.Host, x.Request.Target, t))
}
