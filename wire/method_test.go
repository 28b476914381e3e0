package wire

import "testing"

func TestMethods(t *testing.T) {
	properties := map[Method][2]bool{ // safe, idempotent
		MethodGet: {true, true}, MethodHead: {true, true}, MethodOptions: {true, true}, MethodTrace: {true, true},
		MethodQuery: {true, true}, MethodPut: {false, true}, MethodDelete: {false, true},
		MethodPost: {}, MethodPatch: {}, MethodConnect: {}, MethodOther: {},
	}
	for m := MethodOther; m < MethodCount; m++ {
		want, ok := properties[m]
		if !ok || m.Safe() != want[0] || m.Idempotent() != want[1] {
			t.Errorf("%s: safe %v, idempotent %v, want %v", m, m.Safe(), m.Idempotent(), want)
		}
		if m != MethodOther && ParseMethod([]byte(m.String())) != m {
			t.Errorf("ParseMethod(%q) = %s", m, ParseMethod([]byte(m.String())))
		}
	}
	for _, text := range []string{"", "get", "Get", "GETS", "GE", "PROPFIND", "OTHER"} {
		if m := ParseMethod([]byte(text)); m != MethodOther {
			t.Errorf("ParseMethod(%q) = %s", text, m)
		}
	}
}
