package users

import (
	"bytes"
	"math"
	"strconv"

	"github.com/valyala/fasthttp"
)

const (
	defaultSize = 20
	maxSize     = 100

	// maxPage keeps the number of skipped rows in 64 bits.
	maxPage = math.MaxInt64 / maxSize
)

const (
	pageWanted  = "want a whole number from 1"
	sizeWanted  = "want a whole number from 1 to 100"
	afterWanted = "want the next_after of an earlier answer, or nothing to begin"
)

// parseQuery reads the parameters of a list. It allocates nothing unless a
// role is asked for, and returns the parameter that is wrong, if any.
func parseQuery(args *fasthttp.Args) (Query, problem) {
	q := Query{Page: 1, Size: defaultSize}
	var page, size, after, role bool // have been given
	for key, value := range args.All() {
		var twice, ok bool
		var wanted string
		switch string(key) {
		case "page":
			twice, page, wanted = page, true, pageWanted
			q.Page, ok = parseNumber(value, 1, maxPage)
		case "page_size":
			twice, size, wanted = size, true, sizeWanted
			q.Size, ok = parseNumber(value, 1, maxSize)
		case "after":
			twice, after, wanted = after, true, afterWanted
			q.Kind = ByCursor
			q.After, ok = parseCursor(value)
		case "role":
			twice, role, wanted = role, true, roleWanted
			q.Kind = ByRole
			q.Role = string(value)
			ok = validRole(q.Role)
		default:
			continue
		}
		if twice {
			return q, problem{string(key), "is given twice"}
		}
		if !ok {
			return q, problem{string(key), wanted}
		}
	}
	switch {
	case after && page:
		return q, problem{"after", "goes without page"}
	case role && page:
		return q, problem{"role", "goes without page"}
	case role && after:
		return q, problem{"role", "goes without after"}
	case role && !size:
		q.Size = maxSize
	}
	return q, problem{}
}

// parseNumber reads a decimal number without a sign. Leading zeros are
// refused, so that a value has one spelling.
func parseNumber(b []byte, least, most int) (int, bool) {
	if len(b) == 0 || len(b) > 19 || b[0] == '0' && len(b) > 1 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxInt-int(c-'0'))/10 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, least <= n && n <= most
}

// maxCreated is the last microsecond of the year 9999, which everything that
// deals with times can express.
const maxCreated = 253402300799_999999

// append appends the cursor in the form that clients see.
func (c Cursor) append(b []byte) []byte {
	b = strconv.AppendInt(b, c.Created, 10)
	b = append(b, '-')
	return strconv.AppendInt(b, c.ID, 10)
}

// parseCursor reads what append wrote; nothing is the beginning.
func parseCursor(b []byte) (Cursor, bool) {
	if len(b) == 0 {
		return Cursor{}, true
	}
	created, id, ok := bytes.Cut(b, []byte{'-'})
	if !ok {
		return Cursor{}, false
	}
	c, ok1 := parseNumber(created, 0, maxCreated)
	i, ok2 := parseNumber(id, 0, math.MaxInt64)
	return Cursor{int64(c), int64(i)}, ok1 && ok2
}
