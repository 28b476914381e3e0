package proxy

import (
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gateway/internal/origin"
)

// TestLimitsCountByTheClaimOfAToken has users behind one address, each with a
// limit of its own, and who brings no token, or another's, with none.
func TestLimitsCountByTheClaimOfAToken(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	option, read := accessLog(t)
	o := record(t, origin.OK("ok"))
	r := begin(t, option, app(o.Address), `
[jwt.login]
secret = "`+secret+`"

[limit.user]
rate  = "1/h"
burst = 2
max_keys = 1000
key   = "jwt:sub"

[limit.address]
rate  = "1/h"
burst = 20
max_keys = 1000

[[route]]
path     = "/account"
upstream = "app"
jwt      = "login"
limit    = ["address", "user"]
cors     = { origins = ["https://app.example"] }

[[route]]
path     = "/shop"
upstream = "app"
jwt      = { secret = "`+secret+`", optional = true }
limit    = { rate = "1/h", burst = 1, max_keys = 1000, key = ["jwt:sub", "global"] }
`)
	as := func(user string) string {
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return "Authorization: Bearer " + token
	}
	f := func(path string, want int, fields ...string) answer {
		t.Helper()
		a := r.get(path, fields...)
		if a.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, a.StatusCode, want)
		}
		return a
	}
	f("/account", 200, as("ada"))
	f("/account", 200, as("bob"))
	f("/account", 200, as("ada"))
	f("/account", 429, as("ada"))
	f("/account", 200, as("bob"))
	f("/account", 429, as("bob"))
	f("/account", 200, as("eve"))
	if q := o.last(t); q.Field("Authorization") != as("eve")[len("Authorization: "):] && q.Field("Authorization") == "" {
		t.Errorf("the origin does not get the token:\n%s", q.Head)
	}
	before := o.Requests()
	for _, fields := range [][]string{{}, {as("ada") + "x"}, {"Authorization: Bearer x.y.z"}} {
		if a := f("/account", 401, fields...); a.Header.Get("WWW-Authenticate") == "" || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%v: %v", fields, a.Header)
		}
	}
	a := r.do("OPTIONS /account HTTP/1.1\r\nHost: test\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: GET\r\n\r\n")
	if a.StatusCode != 204 || a.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("a preflight request without a token: %d, %v", a.StatusCode, a.Header)
	}
	if n := o.Requests(); n != before {
		t.Errorf("the origin saw %d requests without a token", n-before)
	}
	// Guests share a bucket: what the exchange before has proved is forgotten.
	f("/shop", 200, as("ada"))
	f("/shop", 200)
	f("/shop", 429)
	f("/shop", 200, as("bob"))
	f("/shop", 429, as("bob"))
	f("/shop", 401, "Authorization: Bearer x.y.z")

	// 20 fit the address: five were let in, one came with the preflight, and
	// what was refused by the user's limit took nothing from it. The three
	// without a token did, so that guessing ends.
	r.endedFor("unauthenticated", 4)
	for guesses := 0; ; guesses++ {
		if a := r.get("/account", "Authorization: Bearer x.y.z"); a.StatusCode == 429 {
			if guesses < 5 {
				t.Errorf("refused after %d guesses", guesses)
			}
			break
		}
		if guesses == 20 {
			t.Fatal("guessing does not end")
		}
	}
	var refused map[any]int
	r.until("all lines are written", func() bool {
		refused = map[any]int{}
		lines := 0
		for _, line := range read() {
			if line["status"] == 429.0 {
				refused[line["limit"]]++
				lines++
			}
		}
		return r.metric("gateway_limit_decisions_total", `decision="denied"`) == 5 && lines == 5
	})
	if refused["user"] != 2 || refused["address"] != 1 {
		t.Errorf("refusals by limit, says the log: %v", refused)
	}
}
