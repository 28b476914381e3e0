package cache

import (
	"strings"
	"testing"

	"gateway/wire"
)

func TestRFC9111_3_3_IncompleteResponsesAreCompleted(t *testing.T) {
	const modified, range03 = "Last-Modified: Sun, 06 Nov 1994 08:33:37 GMT", "Content-Range: bytes 0-2/6"
	// asked is the Range and If-Range that a GET adds when this is stored.
	asked := func(want, span string, body string, answer ...string) *play {
		t.Helper()
		y := newPlay(t, policy())
		if reason := y.fill("GET /", []string{"Range: " + span}, 206, body, append(answer, fresh)...); reason != Storable {
			t.Fatal(answer, reason)
		}
		got := ""
		if v := y.look("GET /"); v != Miss || y.l.Forward != ForwardPartial || y.l.Entry.Valid() {
			t.Errorf("%q: verdict %d, reason %s", answer, v, y.l.Forward)
		}
		if y.l.Part.Valid() {
			var h wire.Header
			y.l.Part.AskRest(&h)
			got = string(h.Get(wire.Range)) + " " + string(h.Get(wire.IfRange))
		}
		if got != want {
			t.Errorf("%q: asked %q, want %q", answer, got, want)
		}
		return y
	}
	y := asked(`bytes=3- "a"`, "bytes=0-2", "abc", range03, `ETag: "a"`, "X: old", "Y: 1")
	asked("bytes=3- Sun, 06 Nov 1994 08:33:37 GMT", "bytes=0-2", "abc", range03, modified)
	// Without a strong validator nothing can be put together.
	asked("", "bytes=0-2", "abc", range03)
	asked("", "bytes=0-2", "abc", range03, `ETag: W/"a"`, modified)
	asked("", "bytes=0-2", "abc", range03, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT") // as old as the response
	asked("", "bytes=0-2", "abc", "Content-Range: bytes 0-2/*", `ETag: "a"`)
	asked("", "bytes=-3", "def", "Content-Range: bytes 3-5/6", `ETag: "a"`)
	for _, lines := range [][]string{{"Range: bytes=2-4"}, {"Cache-Control: no-cache"}} {
		if y.look("GET /", lines...); y.l.Part.Valid() {
			t.Errorf("%q is completed", lines)
		}
	}
	if y.look("HEAD /"); y.l.Part.Valid() {
		t.Error("HEAD is completed")
	}

	f := func(want bool, status int, length int64, answer ...string) {
		t.Helper()
		if y.look("GET /"); !y.l.Part.Valid() {
			t.Fatal("no part")
		}
		var h wire.Header
		if got := y.l.Part.Complete(&h, y.origin(status, answer...), length); got != want {
			t.Errorf("%d %q of %d bytes: %v", status, answer, length, got)
		} else if head := string(h.AppendTo(nil)); want && (!strings.Contains(head, "X: new\r\n") || !strings.Contains(head, "Y: 1\r\n") ||
			strings.Contains(head, "old") || strings.Contains(head, "Content-Range")) {
			t.Errorf("the whole has the fields\n%s", head)
		}
	}
	const rest = "Content-Range: bytes 3-5/6"
	f(true, 206, 3, rest, `ETag: "a"`, "X: new")
	f(false, 200, 3, rest, `ETag: "a"`)
	f(false, 206, 2, rest, `ETag: "a"`)
	f(false, 206, -1, rest, `ETag: "a"`)
	f(false, 206, 3, rest, `ETag: "b"`)
	f(false, 206, 3, rest, `ETag: W/"a"`)
	f(false, 206, 3, rest)
	f(false, 206, 3, `ETag: "a"`)
	f(false, 206, 4, "Content-Range: bytes 2-5/6", `ETag: "a"`)
	f(false, 206, 2, "Content-Range: bytes 3-4/6", `ETag: "a"`)
	f(false, 206, 4, "Content-Range: bytes 3-6/7", `ETag: "a"`)
	f(false, 206, 3, "Content-Range: bytes 3-5/*", `ETag: "a"`)
	y = asked("bytes=3- Sun, 06 Nov 1994 08:33:37 GMT", "bytes=0-2", "abc", range03, modified, "X: old", "Y: 1")
	f(true, 206, 3, rest, modified, "X: new")
	f(false, 206, 3, rest, modified, `ETag: "a"`)
	f(false, 206, 3, rest, "Last-Modified: Sun, 06 Nov 1994 08:33:38 GMT")
	f(false, 206, 3, rest)
	y.l.Release()
}
