package config

import (
	"strings"
	"testing"
	"time"
)

func TestLinesOfKeys(t *testing.T) {
	const text = `# comment = "not a key"
listen = [":1", # [x]
  ":2",
  """:
3""", ':4', '''
:5''']
a.b."c d".e = 1
"quoted\tkey" = "x \" # [y]"
[upstream.users]  # header
servers = [
  "s0",
  { address = "s1", weight = 2 },
  {
    address = "s2", # comment }
    tags = ["x", ["y",
      "z"]],
  },
]
health = {}
retry.attempts = 3

[[route]]
name = "r0"
[route.set_request_headers]
X-A = "1"
[[route]]
name = "r1"
respond = { body = """
four " quotes """", status = 200 }
[[route.inner]]
k = 1
[[route.inner]]
k = 2
[ upstream . 'other' ]
when = 2024-01-01 10:00:00
`
	l := index(text)
	for key, want := range map[string]int{
		"listen": 2, "listen[0]": 2, "listen[1]": 3, "listen[2]": 4, "listen[3]": 5, "listen[4]": 5,
		`a.b."c d".e`: 7, "a": 7, `"quoted\tkey"`: 8,
		"upstream.users": 9, "upstream": 9, "upstream.users.servers[1].weight": 12,
		"upstream.users.servers[2]": 13, "upstream.users.servers[2].address": 14,
		"upstream.users.servers[2].tags[1][1]": 16, "upstream.users.health": 19, "upstream.users.retry.attempts": 20,
		"route": 22, "route[0]": 22, "route[0].name": 23, "route[0].set_request_headers": 24, "route[0].set_request_headers.X-A": 25,
		"route[1]": 26, "route[1].name": 27, "route[1].respond.body": 28, "route[1].respond.status": 29,
		"route[1].inner[0].k": 31, "route[1].inner[1]": 32, "route[1].inner[1].k": 33,
		"upstream.other": 34, "upstream.other.when": 35,
		// what is not in the file has the line of what is around it
		"upstream.users.health.path": 19, "upstream.users.servers[1].backup": 12, "route[0].path": 22, "client.idle_timeout": 1, "": 1,
	} {
		if got := l.of(key); got != want {
			t.Errorf("%s: line %d; want %d", key, got, want)
		}
	}
	if crlf := index(strings.ReplaceAll(text, "\n", "\r\n")); crlf.of("route[1].inner[1].k") != 33 {
		t.Errorf("CRLF: line %d; want 33", crlf.of("route[1].inner[1].k"))
	}
}

func TestIndexingIsBounded(t *testing.T) {
	const n = 20000
	for name, text := range map[string]string{
		"nested lists":  "a = " + strings.Repeat("[", n) + strings.Repeat("]", n),
		"nested tables": "a = " + strings.Repeat("{a=", n) + "1" + strings.Repeat("}", n),
		"dotted":        strings.Repeat("a.", n) + "a = 1",
		"not TOML":      strings.Repeat("]}=[{", n),
		"open string":   `a = "` + strings.Repeat("x", n),
	} {
		begin := time.Now()
		l := index(text)
		size := 0
		for key := range l {
			size += len(key)
		}
		if took := time.Since(begin); took > 2*time.Second || size > 100*len(text) {
			t.Errorf("%s: %s, %d bytes of keys", name, took, size)
		}
	}
}

func TestSuggestions(t *testing.T) {
	known := []string{"balance", "connect_timeout", "health", "servers"}
	f := func(word, want string) {
		t.Helper()
		if got := suggestion(word, known); got != want {
			t.Errorf("%s: %q; want %q", word, got, want)
		}
	}
	f("balence", `; did you mean "balance"?`)
	f("Balance", `; did you mean "balance"?`)
	f("conect_timeout", `; did you mean "connect_timeout"?`)
	f("heatlh", `; did you mean "health"?`)
	f("server", `; did you mean "servers"?`)
	f("x", "; want balance, connect_timeout, health or servers")
	f("frobnicate", "; want balance, connect_timeout, health or servers")
	f(strings.Repeat("a", 1000), "; want balance, connect_timeout, health or servers")
	if got := suggestion("x", nil); got != "" {
		t.Errorf("%q", got)
	}
}
