package load

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	errors int
}

func (r *recorder) Cleanup(func())        {}
func (r *recorder) Errorf(string, ...any) { r.errors++ }

func TestRightAnswersCount(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
	defer s.Close()
	l := Start(t)
	l.Add(Clients{Number: 4, Address: s.Listener.Addr().String(), Path: "/a", PerConnection: 5})
	for end := time.Now().Add(patience); l.Answered() < 100 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	l.End()
	if l.Answered() < 100 || l.Sent() != l.Answered() || l.Failed() != 0 || l.Connections() < 20 {
		t.Errorf("sent %d, answered %d, failed %d, connections %d", l.Sent(), l.Answered(), l.Failed(), l.Connections())
	}
}

func TestLostAndWrongAnswersFail(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"another's answer":  func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "/other") },
		"an error":          func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) },
		"a lost connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		s := httptest.NewServer(handler)
		tb := &recorder{TB: t}
		l := Start(tb)
		l.Add(Clients{Number: 1, Address: s.Listener.Addr().String(), Path: "/a"})
		for end := time.Now().Add(patience); l.Failed() < 20 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		l.End()
		s.Close()
		if l.Answered() != 0 || l.Failed() < 20 || tb.errors != reported {
			t.Errorf("%s: answered %d, failed %d, reported %d", name, l.Answered(), l.Failed(), tb.errors)
		}
	}
}

func TestRefusedConnectionsFailUnlessExpected(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for _, transient := range []bool{false, true} {
		tb := &recorder{TB: t}
		l := Start(tb)
		l.Add(Clients{Number: 1, Address: gone.Addr().String(), Transient: transient})
		time.Sleep(50 * time.Millisecond)
		l.End()
		if failed := l.Failed() > 0; failed == transient {
			t.Errorf("transient %v: %d failures", transient, l.Failed())
		}
	}
}
