package wire

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"gateway/internal/ascii"
)

// view is s as bytes that nobody may write to.
func view(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// Eight bytes at a time.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// bytesBelow marks bytes of x that are less than n ≤ 0x80 in their highest bits:
// the classic test, in which a borrow can raise a false mark only above a true
// one. So the lowest mark is right, and that there is one.
func bytesBelow(x, n uint64) uint64 { return (x - n*ones) &^ x & highs }

// zeroBytes marks bytes of x that are 0, as bytesBelow does.
func zeroBytes(x uint64) uint64 { return bytesBelow(x, 1) }

// visibleLen is the length of the part of s before its first control byte
// (below 0x20, or 0x7f); bytes from 0x80 on are text.
func visibleLen(s []byte) int {
	i := 0
	for ; len(s)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(s[i:])
		if marks := bytesBelow(x, 0x20) | zeroBytes(x^0x7f*ones); marks != 0 {
			return i + bits.TrailingZeros64(marks)>>3
		}
	}
	for i < len(s) && s[i] >= 0x20 && s[i] != 0x7f {
		i++
	}
	return i
}

// cutElement splits the first element off a comma-separated list. Empty
// elements are skipped (RFC 9110 section 5.6.1); an empty one is returned at
// the end only. Quoted strings are not known here: the lists that this is used
// for have none.
func cutElement(list []byte) (element, rest []byte) {
	for len(list) > 0 {
		n := 0
		for n < len(list) && list[n] != ',' {
			n++
		}
		element = ascii.TrimSpace(list[:n])
		if n < len(list) {
			n++
		}
		list = list[n:]
		if len(element) > 0 {
			return element, list
		}
	}
	return nil, nil
}

// HasToken reports whether a comma-separated list value contains the token,
// compared without regard to case (token in lower case). An element with
// parameters is not equal to its token. Commas in quoted strings separate.
func HasToken(value []byte, token string) bool {
	for {
		var element []byte
		if element, value = cutElement(value); len(element) == 0 {
			return false
		}
		if ascii.EqualFold(element, token) {
			return true
		}
	}
}
