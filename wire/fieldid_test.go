package wire

import (
	"strings"
	"testing"
)

func TestEveryFieldHasItsNameAndABit(t *testing.T) {
	if fieldIDCount > 64 {
		t.Fatalf("%d fields do not fit into a fieldSet", fieldIDCount)
	}
	longest := 0
	for id := Unknown + 1; id < fieldIDCount; id++ {
		name := id.String()
		if name == "" {
			t.Fatalf("field %d has no name", id)
		}
		longest = max(longest, len(name))
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := LookupField([]byte(spelling)); got != id {
				t.Errorf("LookupField(%q) = %d %q, want %d", spelling, got, got, id)
			}
		}
	}
	if longest != longestName {
		t.Errorf("the longest name has %d bytes, longestName says %d", longest, longestName)
	}
}

// A name that differs in one byte, be it only in the bit that tells upper from
// lower case, is another name.
func TestSimilarNamesAreUnknown(t *testing.T) {
	for id := Unknown + 1; id < fieldIDCount; id++ {
		name := id.String()
		for i := range len(name) {
			for bit := range 8 {
				other := []byte(name)
				other[i] ^= 1 << bit
				if strings.EqualFold(string(other), name) && other[i] < 0x80 {
					continue
				}
				if got := LookupField(other); got == id {
					t.Errorf("LookupField(%q) = %q", other, got)
				}
			}
		}
		for _, other := range []string{name[1:], name[:len(name)-1], name + "s", "x" + name} {
			if LookupField([]byte(other)) == id {
				t.Errorf("LookupField(%q) = %q", other, id)
			}
		}
	}
	for _, name := range []string{"", "x", "X-Forwarded-Hort", strings.Repeat("a", 31), strings.Repeat("Host", 100)} {
		if got := LookupField([]byte(name)); got != Unknown {
			t.Errorf("LookupField(%q) = %q", name, got)
		}
	}
}

// Lookups of the names that each message has should not probe much.
func TestNameTableIsSparse(t *testing.T) {
	for id := Unknown + 1; id < fieldIDCount; id++ {
		at, probes := nameHash([]byte(id.String())), 1
		for nameSlots[at] != id {
			at++
			probes++
		}
		if probes > 3 {
			t.Errorf("%s is found after %d probes", id, probes)
		}
	}
}
