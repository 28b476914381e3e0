package compress

import (
	"strings"
	"testing"

	"gateway/wire"
)

// accept parses these lines of Accept-Encoding.
func accept(t testing.TB, lines ...string) Accept {
	t.Helper()
	var h wire.Header
	section := ""
	for _, line := range lines {
		section += "Accept-Encoding:" + line + "\r\n"
	}
	if f := h.ParseFields([]byte(section), 0); f != wire.NoFault {
		t.Fatalf("%q is no field section: %v", section, f)
	}
	return ParseAccept(&h)
}

func TestNegotiation(t *testing.T) {
	usual := []Coding{Zstd, Brotli, Gzip}
	offers := usual
	f := func(value string, want Coding) {
		t.Helper()
		a := accept(t, " "+value)
		if got := a.Choose(offers); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
	// What clients send.
	f("gzip, deflate, br, zstd", Zstd)
	f("gzip, deflate, br", Brotli)
	f("gzip, deflate", Gzip)
	f("gzip", Gzip)
	f("gzip,deflate", Gzip)
	f("br;q=1.0, gzip;q=0.8, *;q=0.1", Brotli)
	f("gzip;q=1.0, identity; q=0.5, *;q=0", Gzip)
	f("compress, gzip", Gzip)
	f("compress;q=0.5, gzip;q=1.0", Gzip)
	f("deflate", Identity)
	f("gzip, x-bzip2, lzma, sdch", Gzip)
	f("gzip;q=1.0, deflate;q=0.6, identity;q=0.3", Gzip)

	// Nothing, and nothing useful.
	f("", Identity)
	f(",", Identity)
	f(" , ,, ", Identity)
	f(";", Identity)
	f(";q=1", Identity)
	f("identity", Identity)
	f("unknown", Identity)
	f("gzipped", Identity)
	f("gzi", Identity)
	f("g zip", Identity)

	// Weights.
	f("gzip;q=1", Gzip)
	f("gzip;q=1.", Gzip)
	f("gzip;q=1.000", Gzip)
	f("gzip;q=0", Identity)
	f("gzip;q=0.", Identity)
	f("gzip;q=0.0", Identity)
	f("gzip;q=0.000", Identity)
	f("gzip;q=0.001", Gzip)
	f("gzip;Q=0.5", Gzip)
	f("zstd;q=0.5, br;q=0.6, gzip;q=0.7", Gzip)
	f("zstd;q=0.5, br;q=0.6, gzip;q=0.59", Brotli)
	f("zstd;q=0.599, br;q=0.6, gzip;q=0.6", Brotli)
	f("zstd;q=0.6, br;q=0.6, gzip;q=0.6", Zstd)
	f("gzip;q=0.9, br", Brotli)
	f("gzip;q=0.3333333, br;q=0.3", Gzip)
	f("gzip;foo=bar;q=0.5, br;q=0.4", Gzip)

	// What is no weight refuses.
	f("gzip;q=", Identity)
	f("gzip;q", Identity)
	f("gzip;q=2", Identity)
	f("gzip;q=1.001", Identity)
	f("gzip;q=-1", Identity)
	f("gzip;q=.5", Identity)
	f("gzip;q=0,5", Identity)
	f("gzip;q=1e0", Identity)
	f("gzip;q=0x1", Identity)
	f("gzip;q=\"1\"", Identity)
	f("gzip;q=1 1", Identity)
	f("gzip;q=nan, *", Zstd)
	f("zstd;q=x, br;q=x, gzip;q=x, *", Identity)

	// The wildcard is for what is not named.
	f("*", Zstd)
	f("*;q=0", Identity)
	f("*;q=0.5", Zstd)
	f("zstd;q=0, *", Brotli)
	f("zstd;q=0, br;q=0, *;q=0.1", Gzip)
	f("gzip, *;q=0", Gzip)
	f("gzip, *;q=0.5", Gzip)
	f("gzip;q=0.5, *", Zstd)
	f("*, *;q=0", Identity)

	// Identity has a weight when it is named, by itself or by the wildcard.
	f("identity, gzip;q=0.5", Identity)
	f("identity;q=0.5, gzip;q=0.6", Gzip)
	f("identity;q=0.5, gzip;q=0.5", Gzip)
	f("identity;q=0.5, gzip;q=0.4", Identity)
	f("identity;q=0, gzip", Gzip)
	f("identity;q=0", Identity) // nothing can be sent but this
	f("identity;q=0, *;q=0", Identity)
	f("identity;q=0, *;q=0.001", Zstd)
	f("*, identity;q=0.5", Zstd)

	// Duplicates: the lowest weight counts.
	f("gzip, gzip", Gzip)
	f("gzip, gzip;q=0", Identity)
	f("gzip;q=0, gzip", Identity)
	f("gzip;q=0.9, gzip;q=0.2, br;q=0.5", Brotli)
	f("gzip;q=0.9;q=0.2, br;q=0.5", Brotli)
	f("x-gzip;q=0, gzip", Identity)

	// Spelling and white space.
	f("GZIP", Gzip)
	f("gZip;q=1", Gzip)
	f("X-GZIP", Gzip)
	f("\tgzip\t", Gzip)
	f("gzip ;\tq=0.5 ,\t br ; q = 0.6", Brotli)
	f("gzip;;q=0", Identity)
	f(",gzip,", Gzip)

	offers = []Coding{Gzip}
	f("gzip;q=0.1, *;q=0.5", Identity) // identity is worth 0.5
	f("gzip;q=0.5, *;q=0.5", Gzip)
	f("br, zstd", Identity)
	offers = []Coding{Gzip, Brotli}
	f("gzip, deflate, br, zstd", Gzip)
	f("gzip;q=0.9, br", Brotli)
	offers = []Coding{Deflate, Gzip}
	f("gzip, deflate", Deflate)
	offers = nil
	f("*", Identity)
}

func TestSeveralFieldsAreOneList(t *testing.T) {
	f := func(want Coding, lines ...string) {
		t.Helper()
		a := accept(t, lines...)
		if got := a.Choose([]Coding{Zstd, Brotli, Gzip}); got != want {
			t.Errorf("%q: %v, want %v", lines, got, want)
		}
	}
	f(Identity)
	f(Brotli, " gzip", " br")
	f(Gzip, " br;q=0", " gzip, br")
	f(Zstd, "", " zstd", "")
	f(Identity, " *;q=0", " deflate")
}

func TestCommonFieldsAreParsedAsOthers(t *testing.T) {
	for value, a := range common {
		if b := parse([]byte(value + " ,")); a != b {
			t.Errorf("%q: %v, want %v", value, a, b)
		}
	}
	if a := accept(t); a.Allows(Gzip) || !a.Allows(Identity) {
		t.Error("who does not ask gets gzip, or no identity")
	}
}

func FuzzAccept(f *testing.F) {
	for value := range common {
		f.Add(value)
	}
	for _, value := range []string{"gzip;q=0.5, *;q=0", "br;q=1.0001", ";;;q=,,", "gzip;q=0;q=1", "x-gzip ; Q = 0.25"} {
		f.Add(value)
	}
	offers := []Coding{Zstd, Brotli, Gzip, Deflate}
	f.Fuzz(func(t *testing.T, value string) {
		a := parse([]byte(value))
		for c, w := range a.weights {
			if w < 0 || w > 1000 {
				t.Fatalf("%q: weight %d for %v", value, w, Coding(c))
			}
		}
		c := a.Choose(offers)
		if !a.Allows(c) {
			t.Fatalf("%q: %v is refused and chosen", value, c)
		}
		lower := strings.ToLower(value)
		if c != Identity && !strings.Contains(lower, c.String()) && !strings.Contains(value, "*") {
			t.Fatalf("%q: %v is chosen though nobody named it", value, c)
		}
		// Naming everything as refused at the end refuses it.
		if b := parse([]byte(value + ",zstd;q=0,br;q=0,gzip;q=0,deflate;q=0")); b.Choose(offers) != Identity {
			t.Fatalf("%q: a later refusal does not count", value)
		}
	})
}
