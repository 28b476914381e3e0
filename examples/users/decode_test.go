package users

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// What is accepted is what encoding/json reads, too, and fit to be stored.
func FuzzDecodeBatch(f *testing.F) {
	for _, s := range []string{
		rows("a", 3), "[" + strings.TrimSpace(rows("a", 1)) + "]", "[]", "{", "[{}", `{"name":null}`, `{"name":{"a":[]}}`,
		`{"name":"\ud800","email":"a@b.c","password":"12345678"}`, "\xff", `[{"name":"a"},]`, `{"role":"` + strings.Repeat("x", 99) + `"}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		drafts, err := decodeBatch([]byte(body))
		var input *inputError
		if err != nil {
			if !errors.As(err, &input) || input.Detail == "" || drafts != nil {
				t.Fatalf("%q: error %#v", body, err)
			}
			return
		}
		d := json.NewDecoder(strings.NewReader(body))
		var want []map[string]string
		if strings.HasPrefix(strings.TrimLeft(body, " \t\r\n"), "[") {
			if err := d.Decode(&want); err != nil {
				t.Fatalf("%q: accepted; encoding/json says %v", body, err)
			}
		}
		for d.More() {
			var row map[string]string
			if err := d.Decode(&row); err != nil {
				t.Fatalf("%q: accepted; encoding/json says %v", body, err)
			}
			want = append(want, row)
		}
		if len(drafts) != len(want) || len(drafts) == 0 || len(drafts) > maxBatch {
			t.Fatalf("%q: %d drafts of %d rows", body, len(drafts), len(want))
		}
		for i, draft := range drafts {
			if draft.Name != want[i]["name"] || !strings.EqualFold(draft.Email, want[i]["email"]) {
				t.Errorf("%q: row %d is %+v; want %v", body, i+1, draft, want[i])
			}
			if p := draft.check(false); p.field != "" {
				t.Errorf("%q: row %d is accepted and wrong: %v", body, i+1, p)
			}
		}
	})
}

func TestAddressesNamesAndRoles(t *testing.T) {
	f := func(valid func(string) bool, want bool, values ...string) {
		t.Helper()
		for _, v := range values {
			if valid(v) != want {
				t.Errorf("%.80q: %v; want %v", v, !want, want)
			}
		}
	}
	f(validEmail, true, "a@b.c", "ada.lovelace+x@mail.example.com", "!#$%&'*+-/=?^_`{|}~@a-b.co", strings.Repeat("a", 64)+"@b.c")
	f(validEmail, false, "", "a", "@", "a@", "@b.c", "a@b", "a@b.", "a@.c", "a@-b.c", "a@b-.c", "a..b@c.d", ".a@b.c", "a.@b.c",
		"a b@c.d", "a@b@c.d", "A@b.c", "é@b.c", "a@é.c", "a@b_c.d", "a\x00@b.c", strings.Repeat("a", 65)+"@b.c",
		"a@"+strings.Repeat("b", 64)+".c", "a@"+strings.Repeat("b.", 127)+"c", "<a@b.c>", "a@[127.0.0.1]")
	f(validName, true, "A", "Søren", strings.Repeat("é", 100), "O'Brien; DROP TABLE users")
	f(validName, false, "", "   ", "a\x00", "a\nb", "\u0085", "\xff", strings.Repeat("é", 101))
	f(validRole, true, "a", "admin", "a-b_9", strings.Repeat("a", 32))
	f(validRole, false, "", "Admin", "9a", "-a", "a b", "é", strings.Repeat("a", 33))
	f(validHash, true, "h", "$2a$10$abcdefghijklmnopqrstuv", strings.Repeat("h", 255))
	f(validHash, false, "", "a b", "a\x7f", "é", strings.Repeat("h", 256))
}

func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{"", "1-2", "0-0", "-", "01-1", "253402300799999999-9223372036854775807", "9223372036854775808-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, ok := parseCursor([]byte(s))
		if ok && s != "" && string(c.append(nil)) != s {
			t.Errorf("%q is read as %+v", s, c)
		}
		if ok && (c.Created < 0 || c.Created > maxCreated || c.ID < 0) {
			t.Errorf("%q: %+v is out of range", s, c)
		}
	})
}

func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{"", "page=1&page_size=100", "after=", "after=1-2&page_size=3", "role=admin", "page=0", "page=1&page=2", "%zz=%", "role=a&after=1-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var args fasthttp.Args
		args.Parse(s)
		q, bad := parseQuery(&args)
		if bad.field != "" {
			return
		}
		if q.Size < 1 || q.Size > maxSize || q.Page < 1 || q.Page > maxPage || q.Kind == ByRole != (q.Role != "") {
			t.Errorf("%q: %+v", s, q)
		}
	})
}
