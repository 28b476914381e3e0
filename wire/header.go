package wire

import (
	"encoding/binary"
	"math"

	"gateway/internal/ascii"
)

// Header is a field section: the raw bytes as received, an index over them,
// and edits. The zero value is an empty section that fields can be added to.
// It keeps the capacity of its index over Reset (up to a bound that usual
// messages stay below) and is meant to be pooled with whatever holds it. Not
// safe for concurrent use.
type Header struct {
	raw    []byte   // the section as received, terminating blank line excluded; borrowed
	added  []byte   // lines of added fields; owned
	fields []field  // in order: received ones, then added ones
	known  fieldSet // a live field with this id may exist
}

// field is an entry of the index. Both in raw and in added the lines follow
// each other without gaps and begin with their names; where a line ends is
// told by the next one.
type field struct {
	nameAt   uint32 // in raw, or in added when flags has fieldAdded
	valueAt  uint32
	valueLen uint32
	nameLen  uint16
	id       FieldID
	flags    uint8
}

const (
	fieldAdded   uint8 = 1 << iota // the line is in Header.added
	fieldDeleted                   // the entry is there to keep its neighbours' ends known
)

// What one message may leave behind in the pool.
const (
	keptFields = 1024
	keptBytes  = 16 << 10
)

// Reset empties the section and forgets the raw bytes.
func (h *Header) Reset() {
	h.raw, h.known = nil, 0
	h.added, h.fields = h.added[:0], h.fields[:0]
	if cap(h.added) > keptBytes {
		h.added = nil
	}
	if cap(h.fields) > keptFields {
		h.fields = nil
	}
}

// ParseFields indexes a field section: field lines, each ended by CRLF,
// without the blank line after them; at most maxFields lines (0: any number).
// raw is borrowed until Reset. Strict: bare LF, bare CR, NUL and control bytes
// (HTAB in values excepted), obs-fold, white space in or around a name and
// empty names are faults. Optional white space around values is not part of
// the value. Fields that were there before are forgotten.
func (h *Header) ParseFields(raw []byte, maxFields int) Fault {
	h.Reset()
	_, f := h.index(raw, maxFields, false)
	return f
}

// Len is the number of indexes that Field accepts; deleted fields count.
func (h *Header) Len() int { return len(h.fields) }

// Field is the i-th field, 0 ≤ i < Len, in order of arrival, added ones last;
// ok is false for a deleted one.
func (h *Header) Field(i int) (name, value []byte, id FieldID, ok bool) {
	f := &h.fields[i]
	if f.flags&fieldDeleted != 0 {
		return nil, nil, Unknown, false
	}
	return h.name(f), h.value(f), f.id, true
}

// source holds the line of a field.
func (h *Header) source(f *field) []byte {
	if f.flags&fieldAdded != 0 {
		return h.added
	}
	return h.raw
}

func (h *Header) name(f *field) []byte {
	end := f.nameAt + uint32(f.nameLen)
	return h.source(f)[f.nameAt:end:end]
}

func (h *Header) value(f *field) []byte {
	end := f.valueAt + f.valueLen
	return h.source(f)[f.valueAt:end:end]
}

// lineEnd is where the line of the i-th field ends in its source.
func (h *Header) lineEnd(i int) uint32 {
	f := &h.fields[i]
	if f.flags&fieldAdded != 0 {
		return f.valueAt + f.valueLen + 2
	}
	if i+1 < len(h.fields) && h.fields[i+1].flags&fieldAdded == 0 {
		return h.fields[i+1].nameAt
	}
	return uint32(len(h.raw))
}

// Has reports whether a live field with this id exists.
func (h *Header) Has(id FieldID) bool { return h.Next(id, 0) >= 0 }

// Get is the value of the first live field with this id, nil when there is
// none (an empty value is non-nil).
func (h *Header) Get(id FieldID) []byte {
	i := h.Next(id, 0)
	if i < 0 {
		return nil
	}
	return h.value(&h.fields[i])
}

// Next is the index of the next live field with this id at or after from, -1
// when there is none. Loop: for i := h.Next(id, 0); i >= 0; i = h.Next(id, i+1).
func (h *Header) Next(id FieldID, from int) int {
	if !h.known.has(id) {
		return -1
	}
	for i := from; i < len(h.fields); i++ {
		if f := &h.fields[i]; f.id == id && f.flags&fieldDeleted == 0 {
			return i
		}
	}
	return -1
}

// Find is Get by name, compared without regard to case. Names that have a
// FieldID are found faster by Get.
func (h *Header) Find(name string) []byte {
	if id := LookupField(view(name)); id != Unknown {
		return h.Get(id)
	}
	if i := h.nextNamed(view(name), 0); i >= 0 {
		return h.value(&h.fields[i])
	}
	return nil
}

// nextNamed is Next for a name without a FieldID.
func (h *Header) nextNamed(name []byte, from int) int {
	for i := h.Next(Unknown, from); i >= 0; i = h.Next(Unknown, i+1) {
		if ascii.EqualFold(h.name(&h.fields[i]), name) {
			return i
		}
	}
	return -1
}

// Add appends a field. name and value are copied; they must be valid (the
// configuration checks what it provides): a name that is not a token and a
// value with CR, LF or NUL panic as a bug of the caller.
func (h *Header) Add(name string, value []byte) {
	id := LookupField(view(name))
	if id == Unknown && (!ascii.IsToken(name) || len(name) > math.MaxUint16) {
		panic("BUG: field name " + name + " is not a token")
	}
	line := append(h.added, name...)
	h.add(id, append(line, ": "...), value)
}

// AddID is Add for a field that has an id, in its usual spelling. The name costs
// neither a check nor a look-up.
func (h *Header) AddID(id FieldID, value []byte) {
	if id == Unknown {
		panic("BUG: AddID of an unknown field")
	}
	h.add(id, append(h.added, beginnings[id]...), value)
}

// add ends a line that begins behind those that were added, with a name, a colon
// and a space.
func (h *Header) add(id FieldID, line, value []byte) {
	at, valueAt := len(h.added), len(line)
	if breaksLine(value) {
		panic("BUG: value of field " + string(line[at:valueAt-2]) + " would break its line")
	}
	line = append(line, value...)
	h.added = append(line, "\r\n"...)
	h.fields = append(h.fields, field{
		nameAt:   uint32(at),
		nameLen:  uint16(valueAt - 2 - at),
		valueAt:  uint32(valueAt),
		valueLen: uint32(len(value)),
		id:       id,
		flags:    fieldAdded,
	})
	h.known |= 1 << id
}

// AddAll is Add for all fields of o, another Header that has none but added ones,
// all of them live. Fields that many messages have are checked and composed once.
func (h *Header) AddAll(o *Header) {
	at := uint32(len(h.added))
	h.added = append(h.added, o.added...)
	for _, f := range o.fields {
		if f.flags != fieldAdded {
			panic("BUG: AddAll of a field that was received or deleted")
		}
		f.nameAt += at
		f.valueAt += at
		h.fields = append(h.fields, f)
	}
	h.known |= o.known
}

// breaksLine reports whether a value has CR, LF or NUL.
func breaksLine(value []byte) bool {
	i := 0
	for len(value)-i >= 8 && bytesBelow(binary.LittleEndian.Uint64(value[i:]), '\r'+1) == 0 {
		i += 8
	}
	for _, c := range value[i:] {
		if c == '\r' || c == '\n' || c == 0 {
			return true
		}
	}
	return false
}

// AddString is Add for a string value.
func (h *Header) AddString(name, value string) { h.Add(name, view(value)) }

// AddIDString is AddID for a string value.
func (h *Header) AddIDString(id FieldID, value string) { h.AddID(id, view(value)) }

// Set replaces all fields of that name by one, which becomes the last field.
func (h *Header) Set(name string, value []byte) {
	h.DelName(view(name))
	h.Add(name, value)
}

// SetString is Set for a string value.
func (h *Header) SetString(name, value string) { h.Set(name, view(value)) }

// Del deletes all fields with this id, which must not be Unknown.
func (h *Header) Del(id FieldID) {
	if id == Unknown {
		panic("BUG: Del of all unknown fields")
	}
	h.delSet(1 << id)
}

// delSet deletes all fields with an id in s.
func (h *Header) delSet(s fieldSet) {
	if h.known&s == 0 {
		return
	}
	for i := range h.fields {
		if f := &h.fields[i]; s.has(f.id) {
			f.flags |= fieldDeleted
		}
	}
	h.known &^= s
}

// DelName deletes all fields of that name, compared without regard to case.
func (h *Header) DelName(name []byte) {
	if id := LookupField(name); id != Unknown {
		h.delSet(1 << id)
		return
	}
	for i := h.nextNamed(name, 0); i >= 0; i = h.nextNamed(name, i+1) {
		h.fields[i].flags |= fieldDeleted
	}
}

// DelAt deletes field i.
func (h *Header) DelAt(i int) { h.fields[i].flags |= fieldDeleted }

// AppendTo appends the live fields as lines with CRLF, without a final blank
// line, copying unedited neighbours in one piece.
func (h *Header) AppendTo(dst []byte) []byte {
	var source []byte
	var from, to uint32 // range of source that is still to be copied
	var kind uint8
	for i := range h.fields {
		f := &h.fields[i]
		if f.flags&fieldDeleted != 0 {
			continue
		}
		if f.nameAt != to || f.flags != kind || source == nil {
			dst = append(dst, source[from:to]...)
			source, kind, from = h.source(f), f.flags, f.nameAt
		}
		to = h.lineEnd(i)
	}
	return append(dst, source[from:to]...)
}

// CopyFrom makes h an independent copy of the live fields of o, another
// Header, which may be released afterwards. It may allocate.
func (h *Header) CopyFrom(o *Header) { h.CopyFromIn(nil, o) }

// CopyFromIn is CopyFrom with memory for the received fields, which is borrowed
// until Reset. It returns that, or larger memory when there was too little of it.
func (h *Header) CopyFromIn(memory []byte, o *Header) []byte {
	h.Reset()
	h.raw = memory[:0]
	for i := range o.fields {
		f := o.fields[i]
		if f.flags&fieldDeleted != 0 {
			continue
		}
		line := o.source(&f)[f.nameAt:o.lineEnd(i)]
		to := &h.raw
		if f.flags&fieldAdded != 0 {
			to = &h.added
		} else if cap(h.raw) < len(o.raw) {
			h.raw = make([]byte, 0, len(o.raw)) // once: before the first of them
		}
		moved := uint32(len(*to)) - f.nameAt // wraps when the line moves to the front
		f.nameAt += moved
		f.valueAt += moved
		*to = append(*to, line...)
		h.fields = append(h.fields, f)
		h.known |= 1 << f.id
	}
	return h.raw
}
