package middleware

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"gateway/wire"
)

func TestTheClientIsTheRightMostAddressThatIsNoTrustedProxys(t *testing.T) {
	d := NewIdentity(prefixes(t, "10.0.0.0/8", "fd00::/8"), nil)
	f := func(peer, want string, lists ...string) {
		t.Helper()
		for i := range lists {
			lists[i] = "X-Forwarded-For: " + lists[i]
		}
		x := ask(t, peer, "GET a /", lists...)
		d.Before(x)
		if want == "" && !x.Addr.IsValid() {
			return
		}
		if x.Addr.String() != want {
			t.Errorf("%s with %q: client is %v, want %s", peer, lists, x.Addr, want)
		}
	}
	f("192.0.2.1", "192.0.2.1")
	f("192.0.2.1", "192.0.2.1", "198.51.100.1")
	f("::ffff:192.0.2.1", "192.0.2.1")
	f("10.0.0.1", "10.0.0.1")
	f("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1")
	f("fd00::1%eth0", "198.51.100.1", "198.51.100.1")
	f("10.0.0.1", "198.51.100.1", "203.0.113.9, 198.51.100.1")
	f("10.0.0.1", "198.51.100.1", "203.0.113.9,198.51.100.1 , 10.0.0.2,10.0.0.3")
	f("10.0.0.1", "198.51.100.1", "203.0.113.9", "198.51.100.1, 10.0.0.2", "10.0.0.3")
	f("10.0.0.1", "10.0.0.9", "10.0.0.9, 10.0.0.2")
	f("10.0.0.1", "10.0.0.2", "198.51.100.1, unknown, 10.0.0.2")
	f("10.0.0.1", "10.0.0.1", "198.51.100.1, 10.0.0.x")
	f("10.0.0.1", "198.51.100.1", ",198.51.100.1, ,,10.0.0.2,")
	f("10.0.0.1", "10.0.0.1", "")
	f("10.0.0.1", "10.0.0.1", " , ,")
	f("10.0.0.1", "2001:db8::1", `"[2001:db8::1]:4711", [fd00::2]:80`)
	f("10.0.0.1", "198.51.100.1", "198.51.100.1:4711")
	f("10.0.0.1", "10.0.0.2", "198.51.100.1"+strings.Repeat(", 10.0.0.2", maxHops))
	f("10.0.0.1", "198.51.100.1", "198.51.100.1"+strings.Repeat(", 10.0.0.2", maxHops-1))
	f("", "198.51.100.1", "203.0.113.9, 198.51.100.1") // a Unix socket's peer is trusted
	f("", "")
}

func TestTheSchemeIsTheClientsWhenAProxyIsTrusted(t *testing.T) {
	d := NewIdentity(prefixes(t, "10.0.0.0/8"), nil)
	f := func(peer string, secure bool, want string, fields ...string) {
		t.Helper()
		x := ask(t, peer, "GET a /", fields...)
		x.Secure = secure
		if d.Before(x); x.Scheme != want {
			t.Errorf("%s, %v, %q: %s, want %s", peer, secure, fields, x.Scheme, want)
		}
	}
	f("192.0.2.1", false, "http", "X-Forwarded-Proto: https")
	f("192.0.2.1", true, "https", "X-Forwarded-Proto: http")
	f("10.0.0.1", false, "http")
	f("10.0.0.1", false, "https", "X-Forwarded-Proto: https")
	f("10.0.0.1", true, "http", "X-Forwarded-Proto: HTTP")
	f("10.0.0.1", false, "https", "X-Forwarded-Proto: http, https")
	f("10.0.0.1", false, "https", "X-Forwarded-Proto: http", "X-Forwarded-Proto: https")
	f("10.0.0.1", true, "https", "X-Forwarded-Proto: ftp")
	f("", false, "https", "X-Forwarded-Proto: https")
}

func TestRequestIDsAreKeptFromTrustedPeersOnly(t *testing.T) {
	d := NewIdentity(prefixes(t, "10.0.0.0/8"), nil)
	f := func(peer string, kept bool, ids ...string) {
		t.Helper()
		var fields []string
		for _, id := range ids {
			fields = append(fields, "X-Request-Id: "+id)
		}
		x := ask(t, peer, "GET a /", fields...)
		d.Before(x)
		if kept {
			if string(x.ID) != ids[0] {
				t.Errorf("%s with %q: id is %q", peer, ids, x.ID)
			}
		} else if len(x.ID) != 32 || !lowerHex(x.ID) || len(ids) > 0 && string(x.ID) == ids[0] {
			t.Errorf("%s with %q: id is %q, want a new one", peer, ids, x.ID)
		}
	}
	f("10.0.0.1", true, "aZ09._~+/=-")
	f("10.0.0.1", true, strings.Repeat("a", 128))
	f("10.0.0.1", false, strings.Repeat("a", 129))
	f("10.0.0.1", false, "a b")
	f("10.0.0.1", false, "a\"")
	f("10.0.0.1", false, "")
	f("10.0.0.1", false, "one", "two")
	f("10.0.0.1", false)
	f("192.0.2.1", false, "mine")
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestTracesContinueOrBegin(t *testing.T) {
	d := NewIdentity(nil, nil)
	f := func(flags string, kept bool, parents ...string) {
		t.Helper()
		fields := []string{"Tracestate: a=1", "Tracestate: b=2"}
		for _, p := range parents {
			fields = append(fields, "Traceparent: "+p)
		}
		x := ask(t, "192.0.2.1", "GET a /", fields...)
		d.Before(x)
		trace := string(x.TraceID)
		d.Forward(x)
		sent := values(&x.Request.Header, "traceparent")
		if !validParent([]byte(sent)) || len(sent) != 55 || sent[3:35] != trace || !strings.HasPrefix(sent, "00-") || sent[53:] != flags {
			t.Errorf("%q: %q is sent, the trace is %s", parents, sent, trace)
		}
		if got := trace == parent[3:35]; got != kept {
			t.Errorf("%q: trace %s, kept: %v, want %v", parents, trace, got, kept)
		}
		if strings.Contains(sent, parent[36:52]) {
			t.Errorf("%q: the client's span is sent as this hop's", parents)
		}
		if got := values(&x.Request.Header, "Tracestate"); (got == "a=1|b=2") != kept || !kept && got != "" {
			t.Errorf("%q: tracestate %q is sent", parents, got)
		}
	}
	f("01", true, parent)
	f("00", true, parent[:53]+"00")
	f("03", true, parent[:53]+"ff")
	f("01", true, "01"+parent[2:])
	f("01", true, "cc"+parent[2:]+"-later")
	f("01", false)
	f("01", false, "")
	f("01", false, parent, parent)
	f("01", false, parent+"-later")
	f("01", false, parent+"x")
	f("01", false, "cc"+parent[2:]+"later")
	f("01", false, "ff"+parent[2:])
	f("01", false, strings.ToUpper(parent))
	f("01", false, parent[:54])
	f("01", false, strings.Replace(parent, "-", "_", 1))
	f("01", false, "00-"+strings.Repeat("0", 32)+parent[35:])
	f("01", false, parent[:36]+strings.Repeat("0", 16)+parent[52:])
	f("01", false, parent[:36]+"g"+parent[37:])
}

func TestARefusedHeadIsNotLookedInto(t *testing.T) {
	x := ask(t, "10.0.0.1", "GET a /", "X-Forwarded-For: 192.0.2.1", "X-Request-Id: a", "Traceparent: "+parent)
	x.Fault = wire.BadTarget
	NewIdentity(prefixes(t, "10.0.0.0/8"), nil).Before(x)
	if x.Addr != netip.MustParseAddr("10.0.0.1") || len(x.ID) != 32 || len(x.TraceID) != 32 || string(x.TraceID) == parent[3:35] || x.Scheme != "http" {
		t.Errorf("client %v, id %q, trace %q, scheme %q", x.Addr, x.ID, x.TraceID, x.Scheme)
	}
}

// A request that nobody has named and its trace are found by one id; a name that
// came from a trusted proxy is no trace's, and neither is a trace's a request's.
func TestNewRequestsHaveTheIDOfTheirTrace(t *testing.T) {
	d := NewIdentity(prefixes(t, "10.0.0.0/8"), nil)
	f := func(same bool, fields ...string) {
		t.Helper()
		x := ask(t, "10.0.0.1", "GET a /", fields...)
		d.Before(x)
		if !validID(x.ID) || len(x.TraceID) != 32 || (string(x.ID) == string(x.TraceID)) != same {
			t.Errorf("id %q, trace %q", x.ID, x.TraceID)
		}
	}
	f(true)
	f(false, "X-Request-Id: a")
	f(false, "Traceparent: "+parent)
	f(false, "X-Request-Id: a", "Traceparent: "+parent)
}

func FuzzForwardedFor(f *testing.F) {
	f.Add("1.2.3.4, 10.0.0.1")
	f.Add(`"[::1]:80",,unknown`)
	f.Add(strings.Repeat("10.0.0.2,", 50))
	d := NewIdentity(prefixes(f, "10.0.0.0/8"), nil)
	f.Fuzz(func(t *testing.T, list string) {
		if checkValue(list) != "" {
			return
		}
		x := ask(t, "10.0.0.1", "GET a /", "X-Forwarded-For: "+list)
		d.Before(x)
		if !x.Addr.IsValid() || x.Addr != plain(x.Addr) {
			t.Fatalf("%q gives the client %v", list, x.Addr)
		}
		client := x.Addr
		d.Forward(x)
		// The next gateway that trusts us finds the same client, unless the
		// list has grown beyond the bound.
		y := ask(t, "10.0.0.3", "GET a /", "X-Forwarded-For: "+values(&x.Request.Header, "X-Forwarded-For"))
		if d.Before(y); y.Addr != client && strings.Count(list, ",") < maxHops-1 {
			t.Fatalf("%q gives the client %v here and %v at the next gateway", list, client, y.Addr)
		}
	})
}

func TestHexadecimalDigits(t *testing.T) {
	f := func(n uint64) {
		if got, want := string(appendHex(nil, n)), fmt.Sprintf("%016x", n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f(0)
	f(1<<64 - 1)
	for digit := range uint64(16) {
		for at := range 16 {
			f(digit << (4 * at))
		}
	}
	for range 1000 {
		f(rand.Uint64())
	}
}
