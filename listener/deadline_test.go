package listener

import (
	"strings"
	"testing"
	"time"

	"gateway/exchange"
)

// ended reads until the connection ends and reports what came and how long it
// took since begun.
func (c *client) ended(begun time.Time) (string, time.Duration) {
	c.t.Helper()
	b, err := c.rest()
	if err != nil {
		c.t.Fatalf("connection did not end: %q, %v", b, err)
	}
	return b, time.Since(begun)
}

func TestSilentConnectionIsClosedWithoutAWord(t *testing.T) {
	o := options()
	o.HeaderTimeout = 200 * time.Millisecond
	_, s := start(t, o, func(*exchange.Exchange) { t.Error("that was no request") })
	for _, bytes := range []string{"", "\r\n"} {
		begun := time.Now()
		c := dial(t, s)
		c.send("%s", bytes)
		if got, took := c.ended(begun); got != "" || took < 200*time.Millisecond || took > 5*time.Second {
			t.Errorf("got %q after %v", got, took)
		}
	}
	c := dial(t, s)
	c.Close()
	within(t, "the connection ended", func() bool { return s.Active() == 0 })
}

func TestDrippingHeadIsTimedOutAbsolutely(t *testing.T) {
	o := options()
	o.HeaderTimeout = 500 * time.Millisecond
	_, s := start(t, o, echo)
	f := func(c *client, first string) {
		t.Helper()
		begun := time.Now()
		c.send("%s", first)
		stop := make(chan bool)
		go func() {
			for range 1000 {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					c.Conn.Write([]byte("x"))
				}
			}
		}()
		got, took := c.ended(begun)
		close(stop)
		if !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, "\r\nConnection: close\r\n") || !strings.Contains(got, "client_slow") {
			t.Errorf("got %q", got)
		}
		if took < 400*time.Millisecond || took > 5*time.Second { // the head may have begun before we looked
			t.Errorf("after %v", took)
		}
	}
	f(dial(t, s), "GET /")
	c := dial(t, s)
	c.get("/")
	f(c, "GET /")
	// The first part came with the previous request, when nobody waited for it.
	c = dial(t, s)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /")
	c.answer("GET")
	f(c, "x")
}

func TestHalfAHeadAndCloseIsAnExchange(t *testing.T) {
	reasons := make(chan exchange.Reason, 1)
	_, s := start(t, options(), func(x *exchange.Exchange) {
		reasons <- x.Reason
		x.Client.Abort()
	})
	c := dial(t, s)
	c.send("GET / HTTP")
	c.Close()
	if got := <-reasons; got != exchange.ClientLeft {
		t.Errorf("got %v", got)
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	o := options()
	o.IdleTimeout, o.HeaderTimeout = 300*time.Millisecond, 50*time.Millisecond
	_, s := start(t, o, echo)
	c := dial(t, s)
	for range 3 {
		c.get("/")
		time.Sleep(100 * time.Millisecond) // longer than header_timeout, which is for heads
	}
	begun := time.Now()
	c.get("/")
	if got, took := c.ended(begun); got != "" || took < 290*time.Millisecond || took > 5*time.Second {
		t.Errorf("got %q after %v", got, took)
	}
}

func TestDeadlinesFollowAReload(t *testing.T) {
	o := options()
	f, s := start(t, o, echo)
	c := dial(t, s)
	c.get("/")
	o.IdleTimeout = 200 * time.Millisecond
	f.Apply(o, 0, nil)
	c.get("/") // the options of the next wait
	begun := time.Now()
	if got, took := c.ended(begun); got != "" || took > 5*time.Second {
		t.Errorf("got %q after %v", got, took)
	}
}

func TestPanicEndsOneConnectionOnly(t *testing.T) {
	_, s := start(t, options(), func(x *exchange.Exchange) {
		if string(x.Request.Path) == "/panic" {
			panic("a bug")
		}
		echo(x)
	})
	c := dial(t, s)
	c.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")
	if b, _ := c.rest(); b != "" {
		t.Errorf("got %q", b)
	}
	if got := dial(t, s).get("/"); got.StatusCode != 200 {
		t.Errorf("got %d", got.StatusCode)
	}
	within(t, "the connection is gone", func() bool { return s.Active() == 1 })
}
