package wire

// Method is a request method known to the gateway; every other one is
// MethodOther, and its text travels with the request.
type Method uint8

const (
	MethodOther Method = iota
	MethodGet
	MethodHead
	MethodPost
	MethodPut
	MethodDelete
	MethodConnect
	MethodOptions
	MethodTrace
	MethodPatch
	MethodQuery
	MethodCount // number of values above
)

// ParseMethod finds a method by its exact, case-sensitive text.
func ParseMethod(text []byte) Method {
	switch string(text) {
	case "GET":
		return MethodGet
	case "HEAD":
		return MethodHead
	case "POST":
		return MethodPost
	case "PUT":
		return MethodPut
	case "DELETE":
		return MethodDelete
	case "CONNECT":
		return MethodConnect
	case "OPTIONS":
		return MethodOptions
	case "TRACE":
		return MethodTrace
	case "PATCH":
		return MethodPatch
	case "QUERY":
		return MethodQuery
	}
	return MethodOther
}

var methodNames = [MethodCount]string{
	"OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
}

// String is the text of the method; "OTHER" for MethodOther.
func (m Method) String() string { return methodNames[m] }

// Safe reports whether the method is safe (RFC 9110 section 9.2.1).
func (m Method) Safe() bool {
	switch m {
	case MethodGet, MethodHead, MethodOptions, MethodTrace, MethodQuery:
		return true
	}
	return false
}

// Idempotent reports whether the method is idempotent (RFC 9110 section 9.2.2).
func (m Method) Idempotent() bool {
	return m.Safe() || m == MethodPut || m == MethodDelete
}
