package compress

// AppendETag appends the tag of the coded form of the representation with this
// entity tag: "x" becomes "x-zstd". A weak tag promises nothing about bytes
// and stays; so does what is no entity tag. ok tells whether something was
// appended.
func AppendETag(dst, tag []byte, c Coding) (to []byte, ok bool) {
	if len(tag) < 2 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		return dst, false
	}
	dst = append(dst, tag[:len(tag)-1]...)
	dst = append(dst, '-')
	dst = append(dst, c.String()...)
	return append(dst, '"'), true
}

// AppendPlainETags appends a list of entity tags, as If-None-Match and
// If-Match have it, in which the tags of coded forms have become those of the
// representation behind them. With keep they stay beside those, for origins
// that make such tags too. changed is false, and dst as it was, when there is
// nothing to change or the list is not one.
func AppendPlainETags(dst, list []byte, keep bool) (to []byte, changed bool) {
	to = dst
	for {
		var tag []byte
		var ok bool
		if tag, list, ok = nextTag(list); !ok {
			return dst, false
		}
		if tag == nil {
			if !changed {
				return dst, false
			}
			return to, true
		}
		if len(to) > len(dst) {
			to = append(to, ", "...)
		}
		if n := suffix(tag); n > 0 {
			changed = true
			to = append(to, tag[:len(tag)-1-n]...)
			to = append(to, '"')
			if !keep {
				continue
			}
			to = append(to, ", "...)
		}
		to = append(to, tag...)
	}
}

// AppendAskedETag appends the entity tag under which the client that sent the
// list knows the representation with this tag: that of a coded form, rather
// of the one that it would get now. ok is false, and nothing is appended, when
// the tag is in the list as it stands, or not at all.
func AppendAskedETag(dst, list, tag []byte, now Coding) (to []byte, ok bool) {
	if len(tag) < 2 || tag[0] != '"' || tag[len(tag)-1] != '"' || listed(list, tag) {
		return dst, false
	}
	for c := Identity; c < CodingCount; c++ {
		try := c
		if c == Identity {
			try = now // first
		}
		if try == Identity {
			continue
		}
		if to, _ = AppendETag(dst, tag, try); listed(list, to[len(dst):]) {
			return to, true
		}
	}
	return dst, false
}

// listed reports whether a strong tag, or its weak form, is in the list.
func listed(list, tag []byte) bool {
	for {
		element, rest, ok := nextTag(list)
		if !ok || element == nil {
			return false
		}
		if element[0] == 'W' {
			element = element[2:]
		}
		if string(element) == string(tag) {
			return true
		}
		list = rest
	}
}

// suffix is the length of "-" and a coding's name at the end of a quoted tag,
// 0 when there is none.
func suffix(tag []byte) int {
	opaque := tag[:len(tag)-1]
	for c := Zstd; c < CodingCount; c++ {
		name := codingNames[c]
		// What remains has its opening quote.
		if at := len(opaque) - len(name) - 1; at > 0 && opaque[at] == '-' && string(opaque[at+1:]) == name {
			return len(name) + 1
		}
	}
	return 0
}

// nextTag splits the first entity tag off a list: nil at its end. ok is false
// where something else begins, "*" included.
func nextTag(list []byte) (tag, rest []byte, ok bool) {
	for len(list) > 0 && (list[0] == ' ' || list[0] == '\t' || list[0] == ',') {
		list = list[1:]
	}
	if len(list) == 0 {
		return nil, nil, true
	}
	at := 0
	if list[0] == 'W' && len(list) > 1 && list[1] == '/' {
		at = 2
	}
	if at == len(list) || list[at] != '"' {
		return nil, nil, false
	}
	for end := at + 1; end < len(list); end++ {
		if list[end] == '"' {
			return list[:end+1], list[end+1:], true
		}
	}
	return nil, nil, false
}
