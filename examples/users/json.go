package users

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// The answers of the hot path are appended by hand: no reflection, and no
// allocation once the buffer has grown.

// appendUserJSON appends u as an object. It allocates nothing.
func appendUserJSON(b []byte, u *User) []byte {
	b = append(b, `{"id":`...)
	b = strconv.AppendInt(b, u.ID, 10)
	b = append(b, `,"name":`...)
	b = appendQuoted(b, u.Name)
	b = append(b, `,"email":`...)
	b = appendQuoted(b, u.Email)
	b = append(b, `,"role":`...)
	b = appendQuoted(b, u.Role)
	b = append(b, `,"created_at":"`...)
	b = u.CreatedAt.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","updated_at":"`...)
	b = u.UpdatedAt.AppendFormat(b, time.RFC3339Nano)
	return append(b, `"}`...)
}

// appendListJSON appends the answer to q. It allocates nothing.
func appendListJSON(b []byte, q *Query, p *Page) []byte {
	b = append(b, `{"data":[`...)
	for i := range p.Users {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendUserJSON(b, &p.Users[i])
	}
	b = append(b, `],"pagination":{`...)
	if q.Kind == ByPage {
		b = append(b, `"page":`...)
		b = strconv.AppendInt(b, int64(q.Page), 10)
		b = append(b, ',')
	}
	b = append(b, `"page_size":`...)
	b = strconv.AppendInt(b, int64(q.Size), 10)
	switch q.Kind {
	case ByPage:
		b = append(b, `,"total":`...)
		b = strconv.AppendInt(b, p.Total, 10)
		b = append(b, `,"total_pages":`...)
		b = strconv.AppendInt(b, (p.Total+int64(q.Size)-1)/int64(q.Size), 10)
	case ByCursor:
		b = append(b, `,"next_after":`...)
		if p.More {
			b = append(b, '"')
			b = p.next().append(b)
			b = append(b, '"')
		} else {
			b = append(b, "null"...)
		}
	}
	return append(b, "}}"...)
}

// appendQuoted appends s as a JSON string (RFC 8259 §7). Bytes that are not
// UTF-8 become U+FFFD. It allocates nothing.
func appendQuoted[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0 // of what has not been copied yet
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			size := runeSize(s[i:])
			if size == 0 {
				b = append(b, s[start:i]...)
				b = append(b, "\ufffd"...)
				i++
				start = i
				continue
			}
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// runeSize is the length of the UTF-8 sequence at the front of s, 0 when there
// is none.
func runeSize[T string | []byte](s T) int {
	var head [utf8.UTFMax]byte
	n := copy(head[:], s)
	if r, size := utf8.DecodeRune(head[:n]); r != utf8.RuneError || size > 1 {
		return size
	}
	return 0
}
