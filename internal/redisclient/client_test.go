package redisclient

import (
	"fmt"
	"testing"
	"time"
)

func TestRedisURLs(t *testing.T) {
	f := func(url, want string) {
		t.Helper()
		o, err := clientOptions(Options{URL: url, PoolSize: 3}, time.Second)
		got := ""
		if err != nil {
			got = "error"
		} else {
			got = fmt.Sprint(o.Addrs, o.MasterName, o.IsClusterMode, o.DB, o.TLSConfig != nil, o.MaxRetries)
		}
		if got != want {
			t.Errorf("%s: %s, want %s (%v)", url, got, want, err)
		}
	}
	f("redis://a:1/2", "[a:1]false 2 false -1")
	f("rediss://u:p@a:1", "[a:1]false 0 true -1")
	f("redis://a:1,b:2,c", "[a:1 b:2 c:6379]true 0 false -1")
	f("redis://a:1?addr=b:2", "[a:1 b:2]true 0 false -1")
	f("redis://u:p@a:1,b:2/0?master_name=m", "[a:1 b:2]mfalse 0 false -1")
	f("", "error")
	f("http://a:1", "error")
	f("redis://", "error")
	f("redis://a:1,", "error")
	f("redis://a:1/x", "error")
}

func TestBreaker(t *testing.T) {
	var flips []bool
	b := NewBreaker(func(open bool) { flips = append(flips, open) })
	for _, ok := range []bool{false, false, true, false, false} {
		b.Report(ok)
	}
	if b.IsOpen() || len(b.Opened()) > 0 {
		t.Error("open after two failures in a row")
	}
	b.Report(false)
	b.Report(false)
	if !b.IsOpen() || len(b.Opened()) != 1 {
		t.Error("closed after three failures in a row")
	}
	b.Report(true)
	if b.IsOpen() || fmt.Sprint(flips) != "[true false]" {
		t.Errorf("open %v, flips %v", b.IsOpen(), flips)
	}
}
