package compress

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"gateway/internal/ascii"
	"gateway/internal/clock"
)

// maxDictionaries is how many dictionaries of a route are kept, the newest
// ones. Clients that still have an older one get another coding.
const maxDictionaries = 8

// maxDictionaryWindow bounds the window of an encoder that has a dictionary, and
// with it the size of the body and the dictionary together: every client can
// decode that (RFC 9842 section 5 promises them 8 MiB), and the encoder stays
// below 6 MiB of memory.
const maxDictionaryWindow = 2 << 20

// dczMagic begins a dcz body; the hash of the dictionary and a zstd frame
// follow. To a decoder of zstd it is a skippable frame (RFC 9842 section 5).
const dczMagic = "\x5e\x2a\x4d\x18\x20\x00\x00\x00"

// Dictionary is the body of an earlier response, with which later ones that
// resemble it are coded as dcz. It never changes.
type Dictionary struct {
	body   []byte
	head   [len(dczMagic) + sha256.Size]byte // what a coded body begins with
	name   string                            // of bodies coded with it, among the forms of a body
	whole  [maxLevel + 1]sync.Pool           // encoders that have read it
	pieces [maxLevel + 1][4]sync.Pool        // the same for streams, by window
}

func newDictionary(body []byte, hash [sha256.Size]byte) *Dictionary {
	d := &Dictionary{body: bytes.Clone(body)}
	copy(d.head[copy(d.head[:], dczMagic):], hash[:])
	d.name = "dcz " + base64.RawURLEncoding.EncodeToString(hash[:])
	return d
}

// Name tells bodies that are coded with this dictionary from other forms.
func (d *Dictionary) Name() string { return d.name }

// Dictionaries are those of one route. Safe for concurrent use.
type Dictionaries struct {
	list    atomic.Pointer[[]*Dictionary] // the newest first
	current atomic.Pointer[current]       // that Elect has chosen
	change  sync.Mutex                    // guards writes to both
}

// current is the dictionary that clients of a route are told to keep.
type current struct {
	dictionary *Dictionary
	target     string // path and query that it was the answer to
	since      int64  // clock in ns
}

// How long a dictionary that was chosen stays, in ns: however long its target
// is not asked for any more, and when that target answers something else.
const (
	electedFor  = 3600e9
	electedOnce = 60e9
)

// maxRoutes bounds the table of the routes' dictionaries, since a route's
// remain when the configuration loses it.
const maxRoutes = 4096

// Dictionaries are those of the route of this name, which outlive a reload.
func (e *Engine) Dictionaries(route string) *Dictionaries {
	e.learning.Lock()
	defer e.learning.Unlock()
	s := e.dictionaries[route]
	if s == nil {
		if len(e.dictionaries) >= maxRoutes || e.dictionaries == nil {
			e.dictionaries = map[string]*Dictionaries{}
		}
		s = &Dictionaries{}
		e.dictionaries[route] = s
	}
	return s
}

// Find is the dictionary that an Available-Dictionary field names, nil when it
// is not there or not known. Allocates nothing.
func (s *Dictionaries) Find(field []byte) *Dictionary {
	var hash [base64Room]byte
	list := s.list.Load()
	if list == nil || !byteSequence(&hash, field) {
		return nil
	}
	for _, d := range *list {
		if string(d.head[len(dczMagic):]) == string(hash[:sha256.Size]) {
			return d
		}
	}
	return nil
}

// base64Room is what decoding a hash may write.
const base64Room = 33

// byteSequence reads a hash in a byte sequence of RFC 9651.
func byteSequence(to *[base64Room]byte, field []byte) bool {
	const digits = (sha256.Size + 2) / 3 * 4
	if field = ascii.TrimSpace(field); len(field) != digits+2 || field[0] != ':' || field[digits+1] != ':' {
		return false
	}
	n, err := base64.StdEncoding.Decode(to[:], field[1:digits+1])
	return err == nil && n == sha256.Size
}

// Learn makes a copy of a body one of the dictionaries, unless it is.
func (s *Dictionaries) Learn(body []byte) *Dictionary {
	if d := s.known(body); d != nil {
		return d
	}
	d := newDictionary(body, sha256.Sum256(body))
	s.change.Lock()
	defer s.change.Unlock()
	if other := s.known(body); other != nil {
		return other
	}
	list := []*Dictionary{d}
	if old := s.list.Load(); old != nil {
		list = append(list, (*old)[:min(len(*old), maxDictionaries-1)]...)
	}
	s.list.Store(&list)
	return d
}

func (s *Dictionaries) known(body []byte) *Dictionary {
	if list := s.list.Load(); list != nil {
		for _, d := range *list {
			if bytes.Equal(d.body, body) {
				return d
			}
		}
	}
	return nil
}

// Elect reports whether a body that a target has is the dictionary that
// clients shall keep. The first one is, until it is an hour old, or until its
// target has had another body for a minute. Allocates nothing while the
// dictionary stays.
func (s *Dictionaries) Elect(target, body []byte, now int64) bool {
	if c := s.current.Load(); c != nil {
		same := string(target) == c.target
		if same && bytes.Equal(body, c.dictionary.body) {
			return true
		}
		if age := now - c.since; age < electedOnce || !same && age < electedFor {
			return false
		}
	}
	d := s.Learn(body)
	s.change.Lock()
	defer s.change.Unlock()
	s.current.Store(&current{dictionary: d, target: string(target), since: now})
	return true
}

// IsDictionary reports whether a Use-As-Dictionary field makes its response a
// dictionary of the only type that there is, "raw" (RFC 9842 section 2.1).
func IsDictionary(field []byte) bool {
	found := false
	for len(field) > 0 {
		var member []byte
		member, field = cutMember(field)
		name, value := cut(member, '=')
		switch name = ascii.TrimSpace(name); string(name) {
		case "match":
			value = ascii.TrimSpace(value)
			found = len(value) > 2 && value[0] == '"' && value[len(value)-1] == '"'
		case "type":
			if value, _ = cut(value, ';'); string(ascii.TrimSpace(value)) != "raw" {
				return false
			}
		}
	}
	return found
}

// cutMember splits s at the first comma outside of quotes and parentheses.
func cutMember(s []byte) (member, rest []byte) {
	quoted, depth := false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth <= 0:
			return s[:i], s[i+1:]
		}
	}
	return s, nil
}

// Announcement is the value of a Use-As-Dictionary field for a dictionary that
// serves the paths of these patterns (package match): what they begin with in
// common, and everything behind that.
func Announcement(patterns []string) string {
	common := "/"
	for i, p := range patterns {
		if at := strings.IndexAny(p, "{*"); at >= 0 {
			p = p[:at]
		}
		if p = strings.TrimSuffix(p, "/"); p == "" {
			p = "/"
		}
		if i == 0 {
			common = p
		}
		n := 0
		for n < min(len(p), len(common)) && p[n] == common[n] {
			n++
		}
		common = common[:n]
	}
	var b strings.Builder
	b.WriteString(`match="`)
	for i := range len(common) {
		switch c := common[i]; {
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`\"`, c) >= 0:
			// Cannot be in a path that was normalised; what follows is left to the "*".
			return b.String() + `*"`
		case strings.IndexByte(`:+?(){}*`, c) >= 0:
			b.WriteString(`\\`) // a backslash in a URL pattern, escaped in its string
			fallthrough
		default:
			b.WriteByte(common[i])
		}
	}
	return b.String() + `*"`
}

// EncodeWith is Encode with a dictionary: the body becomes dcz.
func (e *Engine) EncodeWith(d *Dictionary, level, steps int, body []byte) *Buffer {
	if len(body) > MaxWhole {
		panic("BUG: body too large to be coded in one go")
	}
	begun := clock.Mono()
	lowered := lower(Dcz, level, steps)
	home := &d.whole[speed(Dcz, lowered)]
	enc, ok := home.Get().(*Encoder)
	if !ok {
		enc = &Encoder{coding: Dcz, home: home, engine: e}
		enc.createWith(d, speed(Dcz, lowered), window(len(d.body)+MaxWhole))
	}
	enc.out.bytes = append(enc.out.bytes[:0], d.head[:]...)
	enc.out.bytes = enc.zstd.EncodeAll(body, enc.out.bytes)
	b := e.coded(Dcz, enc.out.bytes, len(body), speed(Dcz, lowered) < speed(Dcz, level))
	enc.release()
	e.nanoseconds[Dcz].Add(uint64(clock.Mono() - begun))
	return b
}

// StreamWith is Stream with a dictionary, for a body of known length. nil also
// when the two together are too large.
func (e *Engine) StreamWith(d *Dictionary, level, steps int, length int64, max int) *Encoder {
	if length > maxDictionaryWindow-int64(len(d.body)) || !e.enter(max) {
		return nil
	}
	lowered := lower(Dcz, level, steps)
	e.count(Dcz, speed(Dcz, lowered) < speed(Dcz, level))
	size := window(len(d.body) + int(length))
	home := &d.pieces[speed(Dcz, lowered)][bits.TrailingZeros(uint(maxDictionaryWindow/size))]
	enc, ok := home.Get().(*Encoder)
	if !ok {
		enc = &Encoder{coding: Dcz, home: home, engine: e}
		enc.createWith(d, speed(Dcz, lowered), size)
	}
	enc.w.Reset(&enc.out)
	enc.head = d.head[:]
	return enc
}

// window is the window for so many bytes: a power of two.
func window(n int) int {
	return max(maxDictionaryWindow>>3, 1<<bits.Len(uint(n-1)))
}

func (e *Encoder) createWith(d *Dictionary, level, window int) {
	var err error
	e.zstd, err = zstd.NewWriter(nil, append(zstdOptions(level, window), zstd.WithEncoderDictRaw(0, d.body))...)
	e.w = e.zstd
	must(err)
}
