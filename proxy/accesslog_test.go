package proxy

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"gateway/internal/origin"
)

func TestAccessLogSaysWhatHappened(t *testing.T) {
	option, read := accessLog(t)
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			switch q := c.Read(); q.Target {
			case "/cut":
				c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
				c.Sleep(20 * time.Millisecond)
				c.Reset()
			case "/left":
				c.AwaitClose()
			case "/tunnel":
				c.Write(switched)
				c.Byte()
				c.Write("bye")
				c.Exit()
			default:
				c.Sleep(20 * time.Millisecond)
				c.Write(origin.OK("hello"))
			}
		}
	})
	down := refusing(t)
	r := begin(t, option, app(o.Address), "[upstream.down]\nservers = [\""+down+"\", \""+refusing(t)+"\"]\n", `
[[route]]
name = "broken"
path = "/down"
upstream = "down"

[[route]]
name = "all"
path = ["/a", "/cut", "/left", "/tunnel"]
upstream = "app"
`)
	began := time.Now()
	r.do("POST /a?b=\"c\" HTTP/1.1\r\nHost: test\r\nUser-Agent: me \"x\"\r\nReferer: http://r/\r\nContent-Length: 2\r\n\r\nhi")
	r.get("/none")
	r.do("GET /bad HTTP/1.1\r\nHost: test\r\nX : 1\r\n\r\n")
	r.get("/down")
	r.get("/cut")
	c := r.dial()
	c.send(strings.Replace(upgrade, "/chat", "/tunnel", 1))
	c.head()
	c.send("x")
	c.rest()
	c.Close()
	c = r.dial()
	c.send("GET /left HTTP/1.1\r\nHost: test\r\n\r\n")
	c.Close()
	// Lines of different connections come in any order.
	want := []map[string]any{
		{"route": "all", "method": "POST", "host": "test", "path": "/a", "query": "b=%22c%22", "protocol": "HTTP/1.1", "status": 200.0, "reason": "done",
			"client": "127.0.0.1", "tls": false, "server": o.Address, "attempts": 1.0, "bytes_in": 2.0, "bytes_out": 5.0, "user_agent": "me \"x\"", "referer": "http://r/"},
		{"route": "none", "path": "/none", "status": 404.0, "reason": "no_route", "attempts": 0.0, "server": nil},
		{"route": "none", "path": "/bad", "status": 400.0, "reason": "bad_request", "attempts": 0.0},
		{"route": "broken", "path": "/down", "status": 502.0, "reason": "connect_failed", "attempts": 2.0},
		{"route": "all", "path": "/cut", "status": 200.0, "reason": "origin_truncated", "bytes_out": 5.0},
		{"route": "all", "path": "/tunnel", "status": 101.0, "reason": "done", "bytes_in": 1.0, "bytes_out": 3.0},
		{"route": "all", "path": "/left", "method": "GET", "status": 499.0, "reason": "client_left", "bytes_out": 0.0},
	}
	r.until("all lines are written", func() bool { return len(read()) >= len(want) })
	ids := map[any]bool{}
	for _, line := range read() {
		found := false
		for i, w := range want {
			if w != nil && w["path"] == line["path"] {
				found = true
				for name, value := range w {
					if !reflect.DeepEqual(line[name], value) {
						t.Errorf("%s is %v, want %v in %v", name, line[name], value, line)
					}
				}
				want[i] = nil
			}
		}
		if !found {
			t.Errorf("unexpected line %v", line)
		}
		id, _ := line["request_id"].(string)
		trace, _ := line["trace_id"].(string)
		if len(id) != 32 || len(trace) != 32 || ids[id] || fmt.Sprint(line["peer"])[:10] != "127.0.0.1:" {
			t.Errorf("ids or peer of %v", line)
		}
		ids[id] = true
		at, err := time.Parse(time.RFC3339Nano, line["time"].(string))
		if err != nil || at.Before(began.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("time of %v", line)
		}
		// The phases that were reached add up to the whole.
		whole := line["duration"].(float64)
		sum := 0.0
		for _, phase := range []string{"duration_before", "duration_origin", "duration_body"} {
			if d, ok := line[phase].(float64); ok {
				sum += d
			}
		}
		if line["attempts"] != 0.0 && (sum < whole-1e-5 || sum > whole+1e-5) {
			t.Errorf("phases add up to %v in %v", sum, line)
		}
		if line["method"] == "POST" && line["duration_origin"].(float64) < 0.015 {
			t.Errorf("the origin took 20 ms: %v", line)
		}
	}
}

func TestTheLogAndTheOriginKnowTheRequestByTheSameID(t *testing.T) {
	option, read := accessLog(t)
	o := record(t, origin.OK(""))
	r := begin(t, option, app(o.Address))
	r.get("/")
	r.until("the line is written", func() bool { return len(read()) == 1 })
	line, q := read()[0], o.last(t)
	if line["request_id"] != q.Field("X-Request-Id") || !strings.Contains(q.Field("traceparent"), line["trace_id"].(string)) {
		t.Errorf("the line %v is for\n%s", line, q.Head)
	}
}
