package exchange

import (
	"bytes"

	"gateway/wire"
)

// Cookie is the value of the request's first cookie of that name (RFC 6265
// section 4.2), nil without one. It is borrowed from the request's head.
func (x *Exchange) Cookie(name string) []byte {
	h := &x.Request.Header
	for i := h.Next(wire.Cookie, 0); i >= 0; i = h.Next(wire.Cookie, i+1) {
		_, list, _, _ := h.Field(i)
		for len(list) > 0 {
			pair := list
			if at := bytes.IndexByte(list, ';'); at >= 0 {
				pair, list = list[:at], list[at+1:]
			} else {
				list = nil
			}
			for len(pair) > 0 && (pair[0] == ' ' || pair[0] == '\t') {
				pair = pair[1:]
			}
			if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
				return pair[len(name)+1:]
			}
		}
	}
	return nil
}

// Parameter appends to dst the decoded value of the first parameter of that
// name in the query to forward; it appends nothing without one. What it needs
// beyond dst's capacity is allocated.
func (x *Exchange) Parameter(dst []byte, name string) []byte {
	at := len(dst)
	for query := x.Query; len(query) > 0; {
		pair := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		var value []byte
		if i := bytes.IndexByte(pair, '='); i >= 0 {
			pair, value = pair[:i], pair[i+1:]
		}
		if dst = appendDecoded(dst[:at], pair); string(dst[at:]) == name {
			return appendDecoded(dst[:at], value)
		}
	}
	return dst[:at]
}

// appendDecoded decodes a part of a query; an escape that is none stays.
func appendDecoded(dst, text []byte) []byte {
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(text):
			if high, low := digit(text[i+1]), digit(text[i+2]); high < 16 && low < 16 {
				c = high<<4 | low
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}

// digit is the value of a hexadecimal digit, 16 for anything else.
func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return (c | 0x20) - 'a' + 10
	}
	return 16
}
