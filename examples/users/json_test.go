package users

import (
	"encoding/json"
	"testing"
	"time"
)

func FuzzAppendQuoted(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "é€😀\u2028", "a\xffb\xc3", "\xf0\x9f\x98", "\xed\xa0\x80", "\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := appendQuoted([]byte("x"), s)
		if b[0] != 'x' || !json.Valid(b[1:]) {
			t.Fatalf("%q: %s is not JSON", s, b[1:])
		}
		reference, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var got, want string
		if err := json.Unmarshal(b[1:], &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(reference, &want); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%q is read back as %q; want %q", s, got, want)
		}
	})
}

func TestTimesAreShownInMicroseconds(t *testing.T) {
	u := User{ID: 1, Name: "a\xff\"", CreatedAt: seedEpoch.Add(1234 * time.Microsecond), UpdatedAt: seedEpoch}
	want := "{\"id\":1,\"name\":\"a\ufffd\\\"\",\"email\":\"\",\"role\":\"\",\"created_at\":\"2020-01-01T00:00:00.001234Z\",\"updated_at\":\"2020-01-01T00:00:00Z\"}"
	if got := string(appendUserJSON(nil, &u)); got != want {
		t.Errorf("%s; want %s", got, want)
	}
}
