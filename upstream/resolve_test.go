package upstream

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestNameStandsForAllItsAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.names["app.internal"] = []string{"10.0.0.2", "fd00::1", "::ffff:10.0.0.1", "10.0.0.2"}
		o := defaults("app.internal:80", "10.0.0.9:80", "https://APP.internal:443")
		o.Servers[0].Weight = 3
		p := w.build("app", o)
		defer p.Close()
		if got, want := addresses(p), "10.0.0.1:80 10.0.0.2:80 [fd00::1]:80 10.0.0.9:80 https://10.0.0.1:443 https://10.0.0.2:443 https://[fd00::1]:443"; got != want {
			t.Errorf("servers %s, want %s", got, want)
		}
		if w.lookups("app.internal") != 1 {
			t.Errorf("%d lookups, want one for both entries", w.lookups("app.internal"))
		}
		if p.Servers()[2].Weight != 3 || p.Servers()[3].Weight != 1 {
			t.Error("weight of the name is not that of its addresses")
		}
		if s := p.Servers()[4]; s.origin.tls.ServerName != "app.internal" || p.Servers()[0].origin.tls != nil {
			t.Error("TLS is not for the name")
		}
	})
}

func TestChangedAddressesSwapServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.names["app"] = []string{"10.0.0.1", "10.0.0.2"}
		p := w.build("app", checked("app:80"))
		defer p.Close()
		kept, gone := p.Servers()[0], p.Servers()[1]
		var tried Tried
		tried.Add(kept)
		busy, _ := p.Pick(&tried)
		if busy != gone {
			t.Fatalf("picked %s", busy.Name)
		}

		w.set(func() { w.names["app"] = []string{"10.0.0.3", "10.0.0.1"} })
		w.pass(11 * time.Second)
		w.expect(p, "10.0.0.1:80 10.0.0.3:80")
		if p.Servers()[0] != kept {
			t.Error("the server that stayed was replaced")
		}
		if !retired(gone) || retired(kept) {
			t.Error("only the server that left should be retired")
		}
		busy.Done(Result{Outcome: OK}) // what was in flight ends by itself
		if busy.InFlight() != 0 {
			t.Errorf("%d in flight", busy.InFlight())
		}
		probes := w.probed("10.0.0.2:80")
		w.pass(5 * time.Second)
		if w.probed("10.0.0.2:80") != probes {
			t.Error("the server that left is still checked")
		}
		if log := w.log.String(); !strings.Contains(log, "addresses of name changed") {
			t.Errorf("log:\n%s", log)
		}
	})
}

// retired reports whether the endpoint of a server was told to retire.
func retired(s *Server) bool { return s.Endpoint.idle.retired.Load() }

func TestFailedLookupKeepsTheLastGoodAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.names["app"] = []string{"10.0.0.1"}
		p := w.build("app", defaults("app:80"))
		defer p.Close()
		w.set(func() { delete(w.names, "app") })
		w.pass(time.Minute)
		w.expect(p, "10.0.0.1:80")
		if names := p.Status().Names; len(names) != 1 || names[0] != (NameStatus{Name: "app", Addresses: 1, Error: "no such host app"}) {
			t.Errorf("status of the name: %+v", names)
		}
		w.set(func() { w.names["app"] = []string{"10.0.0.2"} })
		w.pass(11 * time.Second)
		w.expect(p, "10.0.0.2:80")
		if log := w.log.String(); strings.Count(log, "can't be looked up") != 1 || strings.Count(log, "can be looked up again") != 1 {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestPoolStartsWithoutItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := defaults("app:80")
		o.Resolve = 0 // once it is known
		p := w.build("app", o)
		defer p.Close()
		if s, verdict := p.Pick(new(Tried)); s != nil || verdict != NoServer {
			t.Errorf("%v, verdict %d; want NoServer", s, verdict)
		}
		w.pass(10 * time.Second)
		w.set(func() { w.names["app"] = []string{"10.0.0.1"} })
		w.pass(1200 * time.Millisecond)
		w.expect(p, "10.0.0.1:80")
		asked := w.lookups("app")
		w.pass(time.Hour)
		if w.lookups("app") != asked {
			t.Error("the name is looked up again although resolve is 0s")
		}
	})
}

// silent answers when the asker gives up.
type silent struct{}

func (silent) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestBuildWaitsForNamesAsLongAsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRegistry(RegistryOptions{Resolver: silent{}})
		defer r.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		began := time.Now()
		for _, name := range []string{"a", "b", "c"} {
			p, err := r.Build(ctx, name, defaults(name+":80", "10.0.0.1:80"))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if got := addresses(p); got != "10.0.0.1:80" {
				t.Errorf("servers %s", got)
			}
		}
		if waited := time.Since(began); waited != 2*time.Second {
			t.Errorf("waited %v for all, want 2s", waited)
		}
	})
}

func TestNameThatIsFollowedIsNotLookedUpAgainByAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.names["app"] = []string{"10.0.0.1"}
		old := w.build("app", defaults("app:80"))
		o := defaults("app:80")
		o.Balance = "least_conn"
		p := w.build("app", o)
		old.Close()
		if w.lookups("app") != 1 {
			t.Errorf("%d lookups, want 1", w.lookups("app"))
		}
		w.set(func() { w.names["app"] = []string{"10.0.0.2"} })
		w.pass(11 * time.Second)
		w.expect(p, "10.0.0.2:80")
		if got := addresses(old); got != "10.0.0.1:80" {
			t.Errorf("the closed pool went on to %s", got)
		}
		p.Close()
		asked := w.lookups("app")
		w.pass(time.Minute)
		if w.lookups("app") != asked {
			t.Error("a name that nobody uses is still looked up")
		}
	})
}

func TestLocalhostIsOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.names["localhost"] = []string{"::1", "127.0.0.1"}
		p := w.build("app", defaults("localhost:80"))
		w.expect(p, "127.0.0.1:80")
		p.Close()
		w.set(func() { w.names["localhost"] = []string{"::1"} })
		p = w.build("app", defaults("localhost:80"))
		defer p.Close()
		if got := addresses(p); got != "[::1]:80" {
			t.Errorf("servers %s, want [::1]:80", got)
		}
	})
}

func TestOneAddressUnderTwoNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.names["a"] = []string{"10.0.0.1"}
		w.names["b"] = []string{"10.0.0.1"}
		p := w.build("app", defaults("a:80", "b:80", "https://a:443", "https://b:443"))
		defer p.Close()
		if got, want := addresses(p), "10.0.0.1:80 https://10.0.0.1:443 https://10.0.0.1:443#b"; got != want {
			t.Errorf("servers %s, want %s", got, want)
		}
	})
}

func TestTwoNamesOfOneAddressKeepApartInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.names["b"] = []string{"10.0.0.1"} // known before a is
		p := w.build("app", checked("a:80", "b:80"))
		defer p.Close()
		w.expect(p, "10.0.0.1:80")
		w.set(func() { w.names["a"] = []string{"10.0.0.1"} })
		w.pass(2 * time.Second)
		w.expect(p, "10.0.0.1:80 10.0.0.1:80#b")
		for range 4 {
			s, _ := p.Pick(new(Tried))
			s.Done(Result{Outcome: OK})
		}
		if st := p.Status().Servers; st[0].Requests != 2 || st[1].Requests != 2 {
			t.Errorf("requests are not told apart: %+v", st)
		}
	})
}

func TestServicesOfSRVRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		const name = "_https._tcp.example.com"
		w.names = map[string][]string{"a.example.net.": {"10.0.0.1"}, "b.example.net.": {"10.0.0.2", "10.0.0.3"}, "c.example.net.": {"10.0.0.4"}}
		w.srv = map[string][]*net.SRV{name: {
			{Target: "gone.example.net.", Port: 1, Priority: 1, Weight: 9},
			{Target: "a.example.net.", Port: 8001, Priority: 10, Weight: 3},
			{Target: "b.example.net.", Port: 8002, Priority: 10},
			{Target: "c.example.net.", Port: 8003, Priority: 20, Weight: 1},
		}}
		o := defaults("srv:_HTTPS._tcp.Example.com")
		o.Servers[0].Weight = 2
		p := w.build("app", o)
		defer p.Close()
		expect := func(want string) {
			t.Helper()
			if got := addresses(p); got != want {
				t.Errorf("servers are %q, want %q", got, want)
			}
		}
		expect("https://10.0.0.1:8001 https://10.0.0.2:8002 https://10.0.0.3:8002 https://10.0.0.4:8003")
		for i, want := range []struct {
			weight int
			backup bool
		}{{6, false}, {2, false}, {2, false}, {2, true}} {
			if s := p.Servers()[i]; s.Weight != want.weight || s.Backup != want.backup {
				t.Errorf("%s: weight %d, backup %v; want %+v", s.Name, s.Weight, s.Backup, want)
			}
		}
		if s := p.Servers()[0]; s.origin.tls.ServerName != "example.com" {
			t.Errorf("certificates must be for %q", s.origin.tls.ServerName)
		}

		// The best priority is gone: what was a backup serves.
		kept := p.Servers()[3].origin
		w.set(func() { w.srv[name] = w.srv[name][3:] })
		w.pass(12 * time.Second)
		expect("https://10.0.0.4:8003")
		if s := p.Servers()[0]; s.Backup || s.origin != kept || len(w.origins) != 1 {
			t.Errorf("backup %v, %d origins", s.Backup, len(w.origins))
		}
		// What was known stays when the lookup fails, or says that there is nothing.
		w.set(func() { w.srv[name] = []*net.SRV{{Target: "."}} })
		w.pass(12 * time.Second)
		expect("https://10.0.0.4:8003")
		if st := p.Status().Names[0]; st.Addresses != 1 || st.Error != "lookup _https._tcp.example.com: no servers" {
			t.Errorf("status %+v", st)
		}
	})
}
