package cache

import "gateway/internal/ascii"

// kind is the type of a bare item of a structured field (RFC 9651 section 3.3).
type kind uint8

const (
	kindBoolean kind = iota // number is 0 or 1
	kindInteger             // number
	kindDecimal
	kindString // text, escapes as written
	kindToken  // text
	kindBytes
	kindDate
	kindDisplay
	kindInner // an inner list
)

// item is a member of a list or dictionary without its parameters.
type item struct {
	kind   kind
	number int64
	text   []byte // part of the field's value
}

// dictionary is what is left of a dictionary (RFC 9651 section 4.2.2). It
// allocates nothing. Values that fail must be ignored whole, so that a caller
// looks at failed before it uses what it was given.
type dictionary struct {
	rest   []byte
	failed bool
	begun  bool
}

// next is the next member; false at the end or when the syntax is broken.
func (d *dictionary) next() (key []byte, v item, ok bool) {
	p := parser{d.rest}
	if !d.separator(&p) {
		return nil, item{}, false
	}
	key, ok = p.key()
	if ok {
		if len(p.s) > 0 && p.s[0] == '=' {
			p.s = p.s[1:]
			v, ok = p.member()
		} else {
			v = item{kind: kindBoolean, number: 1}
			ok = p.parameters()
		}
	}
	d.rest, d.failed = p.s, !ok
	return key, v, ok
}

// nextItem is next for a list (RFC 9651 section 4.2.1).
func (d *dictionary) nextItem() (v item, ok bool) {
	p := parser{d.rest}
	if !d.separator(&p) {
		return item{}, false
	}
	v, ok = p.member()
	d.rest, d.failed = p.s, !ok
	return v, ok
}

// separator goes to the beginning of the next member, if there is one.
func (d *dictionary) separator(p *parser) bool {
	if d.failed {
		return false
	}
	if !d.begun {
		d.begun = true
		p.spaces()
		if len(p.s) == 0 {
			d.rest = nil
			return false
		}
		return true
	}
	p.s = trimLeft(p.s)
	if len(p.s) == 0 {
		d.rest = nil
		return false
	}
	if p.s[0] != ',' {
		d.failed = true
		return false
	}
	p.s = trimLeft(p.s[1:])
	if len(p.s) == 0 { // a comma at the end
		d.failed = true
		return false
	}
	return true
}

func trimLeft(s []byte) []byte {
	for len(s) > 0 && ascii.IsSpace(s[0]) {
		s = s[1:]
	}
	return s
}

// parser consumes parts of a structured field.
type parser struct{ s []byte }

func (p *parser) spaces() {
	for len(p.s) > 0 && p.s[0] == ' ' {
		p.s = p.s[1:]
	}
}

func (p *parser) key() ([]byte, bool) {
	n := 0
	for n < len(p.s) {
		c := p.s[n]
		if 'a' <= c && c <= 'z' || c == '*' || n > 0 && ('0' <= c && c <= '9' || c == '_' || c == '-' || c == '.') {
			n++
			continue
		}
		break
	}
	key := p.s[:n]
	p.s = p.s[n:]
	return key, n > 0
}

// member is an item or an inner list, with parameters.
func (p *parser) member() (v item, ok bool) {
	if len(p.s) > 0 && p.s[0] == '(' {
		return p.inner()
	}
	if v, ok = p.item(); !ok {
		return v, false
	}
	return v, p.parameters()
}

func (p *parser) inner() (v item, ok bool) {
	p.s = p.s[1:]
	v.kind = kindInner
	for {
		p.spaces()
		if len(p.s) == 0 {
			return v, false
		}
		if p.s[0] == ')' {
			p.s = p.s[1:]
			return v, p.parameters()
		}
		if _, ok := p.item(); !ok || !p.parameters() {
			return v, false
		}
		if len(p.s) == 0 || p.s[0] != ' ' && p.s[0] != ')' {
			return v, false
		}
	}
}

func (p *parser) parameters() bool {
	for len(p.s) > 0 && p.s[0] == ';' {
		p.s = p.s[1:]
		p.spaces()
		if _, ok := p.key(); !ok {
			return false
		}
		if len(p.s) > 0 && p.s[0] == '=' {
			p.s = p.s[1:]
			if _, ok := p.item(); !ok {
				return false
			}
		}
	}
	return true
}

func (p *parser) item() (v item, ok bool) {
	if len(p.s) == 0 {
		return v, false
	}
	switch c := p.s[0]; {
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	case c == '"':
		return p.text(p.s[1:], kindString)
	case c == '*' || 'a' <= ascii.Lower[c] && ascii.Lower[c] <= 'z':
		n := 1
		for n < len(p.s) && (ascii.Token[p.s[n]] || p.s[n] == ':' || p.s[n] == '/') {
			n++
		}
		v = item{kind: kindToken, text: p.s[:n]}
		p.s = p.s[n:]
		return v, true
	case c == ':':
		return p.bytes()
	case c == '?':
		if len(p.s) < 2 || p.s[1] != '0' && p.s[1] != '1' {
			return v, false
		}
		v = item{kind: kindBoolean, number: int64(p.s[1] - '0')}
		p.s = p.s[2:]
		return v, true
	case c == '@':
		p.s = p.s[1:]
		if v, ok = p.number(); !ok || v.kind != kindInteger {
			return v, false
		}
		v.kind = kindDate
		return v, true
	case c == '%' && len(p.s) > 1 && p.s[1] == '"':
		return p.display()
	}
	return v, false
}

func (p *parser) number() (v item, ok bool) {
	s, sign := p.s, int64(1)
	if len(s) > 0 && s[0] == '-' {
		s, sign = s[1:], -1
	}
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		if n == 15 {
			return v, false
		}
		v.number = v.number*10 + int64(s[n]-'0')
		n++
	}
	v.kind, v.number = kindInteger, v.number*sign
	if n == 0 {
		return v, false
	}
	if n < len(s) && s[n] == '.' {
		v.kind = kindDecimal
		decimals := 0
		for n++; n < len(s) && '0' <= s[n] && s[n] <= '9'; n++ {
			decimals++
		}
		if decimals == 0 || decimals > 3 || n-decimals-1 > 12 {
			return v, false
		}
	}
	p.s = s[n:]
	return v, true
}

func (p *parser) text(s []byte, k kind) (v item, ok bool) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return v, false
			}
		case c == '"':
			p.s = s[i+1:]
			return item{kind: k, text: s[:i]}, true
		case c < 0x20 || c > 0x7e:
			return v, false
		}
	}
	return v, false
}

func (p *parser) display() (v item, ok bool) {
	for i := 2; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '"':
			v = item{kind: kindDisplay, text: p.s[2:i]}
			p.s = p.s[i+1:]
			return v, true
		case c == '%':
			if i+2 >= len(p.s) || !isLowerHex(p.s[i+1]) || !isLowerHex(p.s[i+2]) {
				return v, false
			}
			i += 2
		case c < 0x20 || c > 0x7e:
			return v, false
		}
	}
	return v, false
}

func isLowerHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

func (p *parser) bytes() (v item, ok bool) {
	for i := 1; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == ':':
			v = item{kind: kindBytes, text: p.s[1:i]}
			p.s = p.s[i+1:]
			return v, true
		case 'a' <= ascii.Lower[c] && ascii.Lower[c] <= 'z', '0' <= c && c <= '9', c == '+', c == '/', c == '=':
		default:
			return v, false
		}
	}
	return v, false
}
