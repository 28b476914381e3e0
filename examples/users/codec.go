package users

import (
	"encoding/binary"
	"errors"
	"time"
)

// A page in the cache: a version byte, then varints and length-prefixed
// strings. A single user is a page of one. What cannot be read, such as the
// entry of another version, counts as absent.
const codecVersion = 1

var errCodec = errors.New("decode page: it is truncated or of another version")

// appendStored appends p in the cache's form.
func appendStored(b []byte, p *Page) []byte {
	b = append(b, codecVersion, 0)
	if p.More {
		b[len(b)-1] = 1
	}
	b = binary.AppendVarint(b, p.Total)
	b = binary.AppendVarint(b, p.Changed.UnixMicro())
	b = binary.AppendUvarint(b, uint64(len(p.Users)))
	for i := range p.Users {
		u := &p.Users[i]
		b = binary.AppendVarint(b, u.ID)
		b = binary.AppendVarint(b, u.CreatedAt.UnixMicro())
		b = binary.AppendVarint(b, u.UpdatedAt.UnixMicro())
		b = appendString(b, u.Name)
		b = appendString(b, u.Email)
		b = appendString(b, u.Role)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// parseStored fills p from the cache's form. The strings in p are parts of s.
func parseStored(s string, p *Page) error {
	if len(s) < 2 || s[0] != codecVersion || s[1] > 1 {
		return errCodec
	}
	d := decoder{rest: s[2:]}
	p.More = s[1] == 1
	p.Total = d.varint()
	p.Changed = d.time()
	// Each user takes bytes, so a lying count ends the loop early.
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		p.Users = append(p.Users, User{
			ID: d.varint(), CreatedAt: d.time(), UpdatedAt: d.time(),
			Name: d.string(), Email: d.string(), Role: d.string(),
		})
	}
	if d.bad || d.rest != "" {
		return errCodec
	}
	return nil
}

// decoder reads from the front of rest; after the first failure it is bad and
// yields zeros.
type decoder struct {
	rest string
	bad  bool
}

func (d *decoder) uvarint() uint64 {
	var x uint64
	for i := 0; i < len(d.rest) && i < binary.MaxVarintLen64; i++ {
		c := d.rest[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break // more than 64 bits
		}
		x |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.rest = d.rest[i+1:]
			return x
		}
	}
	d.rest, d.bad = "", true
	return 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) time() time.Time {
	return time.UnixMicro(d.varint()).UTC()
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.rest, d.bad = "", true
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}
