package ascii

import "testing"

func TestBytes(t *testing.T) {
	tokens := 0
	for c := range 256 {
		if Token[c] {
			tokens++
		}
		if upper := 'A' <= c && c <= 'Z'; upper != (Lower[c] != byte(c)) || upper && Lower[c] != byte(c+'a'-'A') {
			t.Errorf("%q is folded to %q", rune(c), Lower[c])
		}
	}
	if tokens != 26+26+10+15 {
		t.Errorf("%d bytes of tokens", tokens)
	}
	for s, want := range map[string]bool{"": false, "gzip": true, "X-a_b": true, "a b": false, "a,": false, "é": false, "a\x00": false} {
		if IsToken(s) != want || IsToken([]byte(s)) != want {
			t.Errorf("%q is a token: %v", s, !want)
		}
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{{"", "", true}, {"Host", "hOST", true}, {"a", "b", false}, {"ab", "a", false}, {"[", "{", false}, {"K", "\u212a", false}} {
		if EqualFold(c.a, []byte(c.b)) != c.want {
			t.Errorf("%q equals %q: %v", c.a, c.b, !c.want)
		}
	}
	if !IsSpace('\t') || !IsSpace(' ') || IsSpace('\n') {
		t.Error("white space")
	}
	for s, want := range map[string]string{"": "", " \t ": "", "\ta b ": "a b", "a": "a"} {
		if got := TrimSpace([]byte(s)); string(got) != want {
			t.Errorf("%q is trimmed to %q", s, got)
		}
	}
}
