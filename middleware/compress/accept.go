package compress

import (
	"gateway/internal/ascii"
	"gateway/wire"
)

// Accept is what a request says about the codings of its response: the weight
// of each in thousandths, 0 for those that it does not want. The zero value
// wants none.
type Accept struct {
	weights [CodingCount]int16
}

// unnamed is the weight of a coding that the field has not named yet.
const unnamed = -1

// common are the fields that browsers and tools send, parsed.
var common = func() map[string]Accept {
	m := map[string]Accept{}
	for _, value := range []string{
		"gzip, deflate, br, zstd", "gzip, deflate, br, zstd, dcb, dcz", "gzip, deflate, br", "gzip, deflate", "gzip", "gzip,deflate", "gzip,deflate,br",
		"br, gzip, deflate", "br", "br;q=1.0, gzip;q=0.8, *;q=0.1", "deflate, gzip", "deflate, gzip, br, zstd",
		"gzip, br", "gzip, br, zstd", "gzip,br", "gzip, compress, deflate, br", "gzip;q=1.0, *;q=0.5", "zstd",
		"zstd, br, gzip", "zstd,br,gzip", "identity", "*", "",
	} {
		m[value] = parse([]byte(value))
	}
	return m
}()

// ParseAccept reads the Accept-Encoding fields of a request by RFC 9110
// section 12.5.3. It never fails: an element that can't be read stands for a
// coding that is not wanted, and of several weights for the same coding the
// lowest counts, since what is sent uncoded can always be read. Without a
// field everything would be allowed, but who does not ask gets nothing coded.
// Allocates nothing.
func ParseAccept(h *wire.Header) Accept {
	i := h.Next(wire.AcceptEncoding, 0)
	if i < 0 {
		return Accept{}
	}
	_, value, _, _ := h.Field(i)
	next := h.Next(wire.AcceptEncoding, i+1)
	if next < 0 {
		if a, ok := common[string(value)]; ok {
			return a
		}
		return parse(value)
	}
	p := newParser()
	p.add(value)
	for i := next; i >= 0; i = h.Next(wire.AcceptEncoding, i+1) {
		_, value, _, _ := h.Field(i)
		p.add(value)
	}
	return p.end()
}

func parse(value []byte) Accept {
	p := newParser()
	p.add(value)
	return p.end()
}

// parser collects the elements of one or more field lines.
type parser struct {
	weights [CodingCount]int16
	any     int16 // of "*"
}

func newParser() (p parser) {
	for c := range p.weights {
		p.weights[c] = unnamed
	}
	p.any = unnamed
	return p
}

func (p *parser) add(list []byte) {
	for len(list) > 0 {
		var element []byte
		element, list = cut(list, ',')
		name, parameters := cut(element, ';')
		name = ascii.TrimSpace(name)
		var to *int16
		if len(name) == 1 && name[0] == '*' {
			to = &p.any
		} else if c, ok := LookupCoding(name); ok {
			to = &p.weights[c]
		} else {
			continue
		}
		if w := weight(parameters); *to == unnamed || w < *to {
			*to = w
		}
	}
}

// end gives "*" to the codings that were not named, dcz excepted: who can decode
// that says so. That identity is allowed
// when nothing is said about it needs no weight: it is what remains.
func (p *parser) end() Accept {
	p.weights[Dcz] = max(p.weights[Dcz], 0)
	for c, w := range p.weights {
		if w == unnamed {
			p.weights[c] = max(p.any, 0)
		}
	}
	return Accept{p.weights}
}

// weight is the value of the parameter q in thousandths, 1000 without one, 0
// when it is not a weight. Other parameters are passed over.
func weight(parameters []byte) int16 {
	w := int16(1000)
	for len(parameters) > 0 {
		var parameter []byte
		parameter, parameters = cut(parameters, ';')
		name, value := cut(parameter, '=')
		if name = ascii.TrimSpace(name); len(name) == 1 && ascii.Lower[name[0]] == 'q' {
			w = min(w, qvalue(ascii.TrimSpace(value)))
		}
	}
	return w
}

// qvalue reads a number from 0 to 1 in thousandths, 0 when it is none. Digits
// beyond the third, which the grammar forbids, are read and count nothing.
func qvalue(s []byte) int16 {
	if len(s) == 0 || s[0] != '0' && s[0] != '1' || len(s) > 1 && s[1] != '.' {
		return 0
	}
	w := int16(s[0]-'0') * 1000
	for i, unit := 2, int16(100); i < len(s); i, unit = i+1, unit/10 {
		d := s[i] - '0'
		if d > 9 || s[0] == '1' && d != 0 {
			return 0
		}
		w += int16(d) * unit
	}
	return w
}

// Choose is the best of the offers, which stand in the order of the server's
// preference: the one with the highest weight, and of several the first.
// Identity when the request prefers it, or wants none of them; also when it
// does not want identity either, since a readable answer is better than a 406.
func (a *Accept) Choose(offers []Coding) Coding {
	best, weight := Identity, a.weights[Identity]
	for _, c := range offers {
		if w := a.weights[c]; w > weight || w == weight && w > 0 && best == Identity {
			best, weight = c, w
		}
	}
	return best
}

// Allows reports whether a response may have the coding.
func (a *Accept) Allows(c Coding) bool { return c == Identity || a.weights[c] > 0 }
