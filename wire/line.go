package wire

import (
	"math"

	"gateway/internal/ascii"
)

// index reads the field lines that s begins with. In an open section they end
// with a blank line: index returns the number of bytes including it, or 0 with
// NoFault when s does not reach that far. In a closed one they end with s.
func (h *Header) index(s []byte, maxFields int, open bool) (int, Fault) {
	if uint64(len(s)) > math.MaxUint32 {
		return 0, HeaderTooLarge
	}
	fields, known := h.fields[:0], fieldSet(0)
	at, end := 0, 0
	for {
		if at == len(s) {
			if open {
				return 0, NoFault
			}
			end = at
			break
		}
		switch s[at] {
		case '\r':
			if !open {
				return 0, MissingColon
			}
			if at+1 == len(s) {
				return 0, NoFault
			}
			if s[at+1] != '\n' {
				return 0, BareCR
			}
			end = at + 2
		case ' ', '\t':
			return 0, ObsoleteFold
		}
		if end > 0 {
			break
		}
		if len(fields) == maxFields && maxFields > 0 {
			return 0, TooManyFields
		}
		line, f := scanLine(s[at:])
		if f != NoFault {
			return 0, f
		}
		if line.end == 0 {
			if !open {
				return 0, BareLF
			}
			return 0, NoFault
		}
		if line.colon > math.MaxUint16 {
			return 0, HeaderTooLarge
		}
		id := LookupField(s[at : at+line.colon])
		known |= 1 << id
		fields = append(fields, field{
			nameAt:   uint32(at),
			nameLen:  uint16(line.colon),
			valueAt:  uint32(at + line.from),
			valueLen: uint32(line.to - line.from),
			id:       id,
		})
		at += line.end
	}
	h.raw, h.fields, h.known = s[:at:at], fields, known
	return end, NoFault
}

// fieldLine is where the parts of a field line are.
type fieldLine struct {
	colon    int // length of the name
	from, to int // the value, without white space around it
	end      int // length of the line with its CRLF; 0: it is not complete
}

// scanLine reads the field line that s begins with.
func scanLine(s []byte) (line fieldLine, f Fault) {
	i := 0
	for i < len(s) && ascii.Token[s[i]] {
		i++
	}
	if i == len(s) {
		return fieldLine{}, NoFault
	}
	if s[i] != ':' || i == 0 {
		return fieldLine{}, nameFault(s, i)
	}
	line.colon = i
	i++
	for i < len(s) && ascii.IsSpace(s[i]) {
		i++
	}
	line.from = i
	for {
		i += visibleLen(s[i:])
		if i == len(s) {
			return fieldLine{}, NoFault
		}
		if s[i] != '\t' {
			break
		}
		i++
	}
	if s[i] != '\r' {
		if s[i] == '\n' {
			return fieldLine{}, BareLF
		}
		return fieldLine{}, ControlByte
	}
	if i+1 == len(s) {
		return fieldLine{}, NoFault
	}
	if s[i+1] != '\n' {
		return fieldLine{}, BareCR
	}
	line.end = i + 2
	for i > line.from && ascii.IsSpace(s[i-1]) {
		i--
	}
	line.to = i
	return line, NoFault
}

// nameFault says what is wrong with a line whose name stops at s[i] without a
// colon, or before its first byte; NoFault when too little is there to tell.
func nameFault(s []byte, i int) Fault {
	switch c := s[i]; {
	case c == ':':
		return BadFieldName
	case ascii.IsSpace(c) && i > 0:
		for i < len(s) && ascii.IsSpace(s[i]) {
			i++
		}
		if i == len(s) {
			return NoFault
		}
		if s[i] == ':' {
			return SpaceBeforeColon
		}
		return BadFieldName
	case c == '\n':
		return BareLF
	case c == '\r':
		if i+1 == len(s) {
			return NoFault
		}
		if s[i+1] != '\n' {
			return BareCR
		}
		return MissingColon
	case c < 0x20 || c == 0x7f:
		return ControlByte
	}
	return BadFieldName
}
