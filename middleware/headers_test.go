package middleware

import (
	"strings"
	"testing"
)

func TestHeadersRemoveThenSetThenAdd(t *testing.T) {
	o := HeaderOptions{
		SetRequestHeaders:     map[string]string{"X-Set": "new", "X-Both": "set"},
		AddRequestHeaders:     map[string]string{"X-Add": "2", "X-Both": "added"},
		RemoveRequestHeaders:  []string{"x-gone", "cookie", "X-Absent"},
		SetResponseHeaders:    map[string]string{"strict-transport-security": "max-age=1"},
		AddResponseHeaders:    map[string]string{"Vary": "Cookie"},
		RemoveResponseHeaders: []string{"Server", "X-Powered-By"},
	}
	if got := problems(o.Check); got != "" {
		t.Fatal(got)
	}
	s := NewHeaders(o)
	x := ask(t, "192.0.2.1", "GET a /", "X-Set: old", "X-SET: older", "X-Add: 1", "X-Gone: 1", "Cookie: a=b", "Accept: */*")
	s.Response(x) // before there is a response
	s.Request(x)
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	q := &x.Request.Header
	f(values(q, "X-Set"), "new")
	f(values(q, "X-Add"), "1|2")
	f(values(q, "X-Both"), "set|added")
	f(values(q, "X-Gone")+values(q, "Cookie"), "")
	f(values(q, "Accept"), "*/*")

	h := x.Own(200)
	h.AddString("Server", "origin")
	h.AddString("x-powered-by", "origin")
	h.AddString("Strict-Transport-Security", "max-age=0")
	h.AddString("Vary", "Accept")
	s.Response(x)
	f(values(h, "Server")+values(h, "X-Powered-By"), "")
	f(values(h, "Strict-Transport-Security"), "max-age=1")
	f(values(h, "Vary"), "Accept|Cookie")

	if NewHeaders(HeaderOptions{}) != nil {
		t.Error("a stage without work is not nil")
	}
}

func TestHeaderOptionsThatWouldBreakMessagesAreRefused(t *testing.T) {
	f := func(o HeaderOptions, want string) {
		t.Helper()
		if got := problems(o.Check); !strings.Contains(got, want) {
			t.Errorf("%+v: problems %q, want %q", o, got, want)
		}
	}
	set := func(name, value string) HeaderOptions {
		return HeaderOptions{SetRequestHeaders: map[string]string{name: value}}
	}
	f(set("X A", "1"), `set_request_headers.X A: "X A" is no field name`)
	f(set("", "1"), `is no field name`)
	f(set("X-A", "1\r\nX-B: 2"), "set_request_headers.X-A: control character")
	f(set("X-A", " 1"), "space at the ends")
	f(set("transfer-encoding", "chunked"), "belongs to the connection")
	f(set("Content-Length", "1"), "belongs to the connection")
	f(set("Connection", "close"), "belongs to the connection")
	f(set("Upgrade", "x"), "belongs to the connection")
	f(set("host", "b"), "the upstream's option host")
	f(set("Expect", "100-continue"), "never forwarded")
	f(HeaderOptions{SetRequestHeaders: map[string]string{"X-A": "1", "x-a": "2"}}, "twice")
	f(HeaderOptions{AddRequestHeaders: map[string]string{"TE": "trailers"}}, "add_request_headers.TE")
	f(HeaderOptions{RemoveRequestHeaders: []string{"Host"}}, "remove_request_headers")
	f(HeaderOptions{SetResponseHeaders: map[string]string{"Date": "now"}}, "set_response_headers.Date")
	f(HeaderOptions{AddResponseHeaders: map[string]string{"Trailer": "a"}}, "add_response_headers.Trailer")
	f(HeaderOptions{RemoveResponseHeaders: []string{"a b"}}, "remove_response_headers")
}
