package middleware

import (
	"strings"
	"testing"
	"time"
)

func TestCORSAnswersTellAllowedOriginsOnly(t *testing.T) {
	f := func(o CORSOptions, origin, allow, credentials, vary string) {
		t.Helper()
		if got := problems(o.Check); got != "" {
			t.Fatal(got)
		}
		var fields []string
		if origin != "" {
			fields = append(fields, "Origin: "+origin)
		}
		x := ask(t, "192.0.2.1", "GET a /", fields...)
		h := x.Own(200)
		h.AddString("Access-Control-Allow-Origin", "https://of-the-origin.example")
		h.AddString("access-control-allow-credentials", "true")
		h.AddString("Vary", "Accept")
		c := NewCORS(o)
		c.After(x)
		c.After(x) // changes nothing
		if got := values(h, "Access-Control-Allow-Origin"); got != allow {
			t.Errorf("%q of %q: allowed is %q, want %q", origin, o.Origins, got, allow)
		}
		if got := values(h, "Access-Control-Allow-Credentials"); got != credentials {
			t.Errorf("%q of %q: credentials %q, want %q", origin, o.Origins, got, credentials)
		}
		if got := values(h, "Vary"); got != vary {
			t.Errorf("%q of %q: Vary %q, want %q", origin, o.Origins, got, vary)
		}
		want := ""
		if allow != "" {
			want = strings.Join(o.Expose, ", ")
		}
		if got := values(h, "Access-Control-Expose-Headers"); got != want {
			t.Errorf("%q of %q: exposed %q, want %q", origin, o.Origins, got, want)
		}
	}
	every := CORSOptions{Origins: []string{"*"}, Expose: []string{"X-A", "X-B"}}
	f(every, "https://a.example", "*", "", "Accept")
	f(every, "", "*", "", "Accept")

	some := CORSOptions{Origins: []string{"https://App.example", "https://*.b.example", "http://*.c.example:8080"}, Credentials: true, Expose: []string{"X-A"}}
	yes := func(origin string) { t.Helper(); f(some, origin, origin, "true", "Accept|Origin") }
	no := func(origin string) { t.Helper(); f(some, origin, "", "", "Accept|Origin") }
	yes("https://app.example")
	yes("https://x.b.example")
	yes("https://x.y.b.example")
	yes("http://x.c.example:8080")
	no("")
	no("null")
	no("http://app.example")
	no("https://app.example:8443")
	no("https://b.example")
	no("https://.b.example")
	no("https://evilb.example")
	no("https://x.b.example.evil.example")
	no("https://evil.example/.b.example")
	no("https://evil.example?.b.example")
	no("https://x.b.example:8443")
	no("http://x.c.example")
	no("https://app.example, https://app.example")
	no("https://app.example\r\nOrigin: https://app.example")
}

func TestCORSKeepsAVaryThatSaysEnough(t *testing.T) {
	c := NewCORS(CORSOptions{Origins: []string{"https://a.example"}})
	for _, vary := range []string{"*", "Accept, ORIGIN"} {
		x := ask(t, "192.0.2.1", "GET a /")
		x.Own(200).AddString("Vary", vary)
		if c.After(x); values(x.Response.Header, "Vary") != vary {
			t.Errorf("Vary: %s became %s", vary, values(x.Response.Header, "Vary"))
		}
	}
}

func TestPreflightIsAnsweredByTheGateway(t *testing.T) {
	o := CORSOptions{Origins: []string{"https://a.example"}, Methods: []string{"GET", "PUT"}, Headers: []string{"X-A", "X-B"}, MaxAge: 10 * time.Minute}
	f := func(o CORSOptions, method string, fields []string, handled bool, want map[string]string) {
		t.Helper()
		x := ask(t, "192.0.2.1", method+" a /", fields...)
		c := NewCORS(o)
		if got := c.Preflight(x); got != handled {
			t.Fatalf("%s %q: handled %v, want %v", method, fields, got, handled)
		}
		if !handled {
			return
		}
		if x.Response.Status != 204 || x.Response.Length != 0 {
			t.Errorf("answer %d of %d bytes", x.Response.Status, x.Response.Length)
		}
		for range 2 { // the spine may run After on this answer too
			for _, name := range []string{"Allow-Origin", "Allow-Credentials", "Allow-Methods", "Allow-Headers", "Max-Age"} {
				name = "Access-Control-" + name
				if got := values(x.Response.Header, name); got != want[name] {
					t.Errorf("%q: %s is %q, want %q", fields, name, got, want[name])
				}
			}
			if got := values(x.Response.Header, "Vary"); got != want["Vary"] {
				t.Errorf("%q: Vary is %q, want %q", fields, got, want["Vary"])
			}
			c.After(x)
		}
	}
	asked := []string{"Origin: https://a.example", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization,x-c"}
	f(o, "OPTIONS", asked, true, map[string]string{
		"Access-Control-Allow-Origin": "https://a.example", "Access-Control-Allow-Methods": "GET, PUT",
		"Access-Control-Allow-Headers": "X-A, X-B", "Access-Control-Max-Age": "600", "Vary": "Origin",
	})
	f(o, "OPTIONS", []string{"Origin: https://b.example", "Access-Control-Request-Method: PUT"}, true, map[string]string{"Vary": "Origin"})
	f(o, "GET", asked, false, nil)
	f(o, "OPTIONS", asked[:1], false, nil)
	f(o, "OPTIONS", asked[1:], false, nil)

	o.Headers, o.Credentials = []string{"*"}, true
	f(o, "OPTIONS", asked, true, map[string]string{
		"Access-Control-Allow-Origin": "https://a.example", "Access-Control-Allow-Credentials": "true",
		"Access-Control-Allow-Methods": "GET, PUT", "Access-Control-Allow-Headers": "authorization,x-c",
		"Access-Control-Max-Age": "600", "Vary": "Origin|Access-Control-Request-Headers",
	})
	f(o, "OPTIONS", []string{asked[0], asked[1], "Access-Control-Request-Headers: <script>"}, true, map[string]string{
		"Access-Control-Allow-Origin": "https://a.example", "Access-Control-Allow-Credentials": "true",
		"Access-Control-Allow-Methods": "GET, PUT", "Access-Control-Max-Age": "600",
		"Vary": "Origin|Access-Control-Request-Headers",
	})
	f(CORSOptions{Origins: []string{"*"}}, "OPTIONS", asked, true, map[string]string{
		"Access-Control-Allow-Origin": "*", "Access-Control-Max-Age": "0",
	})
}

func TestCORSOptionsAreChecked(t *testing.T) {
	f := func(o CORSOptions, want string) {
		t.Helper()
		if got := problems(o.Check); !strings.Contains(got, want) {
			t.Errorf("%+v: problems %q, want %q", o, got, want)
		}
	}
	origin := func(text, want string) {
		t.Helper()
		f(CORSOptions{Origins: []string{text}}, want)
	}
	f(CORSOptions{}, "origins: no origin")
	f(CORSOptions{Origins: []string{"*"}, Credentials: true}, "credentials: credentials for the origin")
	f(CORSOptions{Origins: []string{"*", "https://a"}}, "want it alone")
	origin("a.example", "https://app.example.com")
	origin("https://a.example/", "without a slash")
	origin("https://a.example:443", "leave out")
	origin("http://*.a.example:80", "leave out")
	origin("https://*", "first label")
	origin("https://a.*.example", "first label")
	origin("https://*.", "first label")
	origin("https://bücher.example", "xn--")
	origin("null", "sandboxed")
	every := []string{"*"}
	f(CORSOptions{Origins: every, Methods: []string{"G T"}}, "methods")
	f(CORSOptions{Origins: every, Headers: []string{"a:"}}, "headers")
	f(CORSOptions{Origins: every, Headers: []string{"*", "X-A"}}, "headers: \"*\" allows every")
	f(CORSOptions{Origins: []string{"https://a"}, Expose: every, Credentials: true}, "expose: browsers")
	f(CORSOptions{Origins: every, MaxAge: time.Millisecond}, "max_age")
}
