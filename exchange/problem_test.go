package exchange

import (
	"encoding/json"
	"strings"
	"testing"

	"gateway/wire"
)

func TestEveryReasonHasItsRow(t *testing.T) {
	seen := map[string]bool{}
	for r := Reason(0); r < ReasonCount; r++ {
		o := outcomes[r]
		if name := r.String(); name == "" || seen[name] || strings.ToLower(name) != name {
			t.Errorf("reason %d is named %q", r, name)
		} else {
			seen[name] = true
		}
		if r != Done && (o.status < 400 || o.status > 599 || o.title == "") {
			t.Errorf("%v is answered %d %q", r, o.status, o.title)
		}
		if o.retry && o.status != 503 {
			t.Errorf("%v sends Retry-After with %d", r, o.status)
		}
	}
	if ReasonCount.String() != "unknown" {
		t.Error("a value out of range has a name")
	}
}

func TestProblemsAreValidJSON(t *testing.T) {
	x := Acquire()
	defer Release(x)
	x.ID = []byte("abc")
	for r := BadRequest; r < ReasonCount; r++ {
		x.Fault = wire.LengthAndCoding
		x.Fail(r)
		var p struct {
			Status    int
			Reason    string
			Detail    string
			RequestID string `json:"request_id"`
		}
		if err := json.Unmarshal(x.Response.Body, &p); err != nil {
			t.Errorf("%v: %v in %s", r, err, x.Response.Body)
		}
		if p.Status != x.Response.Status || p.Reason != r.String() || p.RequestID != "abc" || x.Reason != r || x.Response.Length != int64(len(x.Response.Body)) {
			t.Errorf("%v: %+v", r, p)
		}
		if (r == BadRequest) != (p.Detail == wire.LengthAndCoding.String()) {
			t.Errorf("%v: detail %q", r, p.Detail)
		}
	}
}

// A request body that was read to be sent again outlives the answers that
// failed attempts have made.
func TestBufferedBodyOutlivesAnAnswer(t *testing.T) {
	x := Acquire()
	defer Release(x)
	x.Client = sender{}
	x.Request.Length = 5
	body, err := x.bufferBody()
	if err != nil {
		t.Fatal(err)
	}
	x.Fail(OriginReset)
	if string(body) != "hello" {
		t.Errorf("the body became %q", body)
	}
}

// sender is a client that has sent "hello".
type sender struct{ Client }

func (sender) ReadBody(p []byte) (int, error) { return copy(p, "hello"), nil }
