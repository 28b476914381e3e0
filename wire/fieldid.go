package wire

import (
	"encoding/binary"

	"gateway/internal/ascii"
)

// FieldID names the fields that the gateway itself looks at; Unknown is every
// other one.
type FieldID uint8

const (
	Unknown FieldID = iota
	Accept
	AcceptEncoding
	AccessControlRequestHeaders
	AccessControlRequestMethod
	Age
	Authorization
	CacheControl
	CacheStatus
	CDNCacheControl
	Connection
	ContentEncoding
	ContentLength
	ContentLocation
	ContentRange
	ContentType
	Cookie
	Date
	ETag
	Expect
	Expires
	Forwarded
	Host
	HTTP2Settings
	IfMatch
	IfModifiedSince
	IfNoneMatch
	IfRange
	IfUnmodifiedSince
	KeepAlive
	LastModified
	Location
	Origin
	Pragma
	ProxyAuthenticate
	ProxyAuthenticationInfo
	ProxyAuthorization
	ProxyConnection
	ProxyStatus
	Range
	Referer
	RetryAfter
	SecWebSocketKey
	Server
	SetCookie
	SurrogateKey
	TE
	Traceparent
	Tracestate
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	Vary
	Via
	WWWAuthenticate
	XForwardedFor
	XForwardedHost
	XForwardedPort
	XForwardedProto
	XRequestID
	fieldIDCount // at most 64: fieldSet has a bit for each
)

// LookupField finds the id of a name, compared without regard to case.
func LookupField(name []byte) FieldID {
	n := len(name)
	if n < 2 || n > longestName {
		return Unknown
	}
	for at := nameHash(name); ; at++ {
		id := nameSlots[at]
		if id == Unknown || names[id].equals(name) {
			return id
		}
	}
}

// String is the name in its usual spelling; "" for Unknown.
func (id FieldID) String() string { return spellings[id] }

// fieldSet is a set of fields, a bit for each id.
type fieldSet uint64

func setOf(ids ...FieldID) fieldSet {
	var s fieldSet
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

func (s fieldSet) has(id FieldID) bool { return s>>id&1 != 0 }

var spellings = [fieldIDCount]string{
	Accept:                      "Accept",
	AcceptEncoding:              "Accept-Encoding",
	AccessControlRequestHeaders: "Access-Control-Request-Headers",
	AccessControlRequestMethod:  "Access-Control-Request-Method",
	Age:                         "Age",
	Authorization:               "Authorization",
	CacheControl:                "Cache-Control",
	CacheStatus:                 "Cache-Status",
	CDNCacheControl:             "CDN-Cache-Control",
	Connection:                  "Connection",
	ContentEncoding:             "Content-Encoding",
	ContentLength:               "Content-Length",
	ContentLocation:             "Content-Location",
	ContentRange:                "Content-Range",
	ContentType:                 "Content-Type",
	Cookie:                      "Cookie",
	Date:                        "Date",
	ETag:                        "ETag",
	Expect:                      "Expect",
	Expires:                     "Expires",
	Forwarded:                   "Forwarded",
	Host:                        "Host",
	HTTP2Settings:               "HTTP2-Settings",
	IfMatch:                     "If-Match",
	IfModifiedSince:             "If-Modified-Since",
	IfNoneMatch:                 "If-None-Match",
	IfRange:                     "If-Range",
	IfUnmodifiedSince:           "If-Unmodified-Since",
	KeepAlive:                   "Keep-Alive",
	LastModified:                "Last-Modified",
	Location:                    "Location",
	Origin:                      "Origin",
	Pragma:                      "Pragma",
	ProxyAuthenticate:           "Proxy-Authenticate",
	ProxyAuthenticationInfo:     "Proxy-Authentication-Info",
	ProxyAuthorization:          "Proxy-Authorization",
	ProxyConnection:             "Proxy-Connection",
	ProxyStatus:                 "Proxy-Status",
	Range:                       "Range",
	Referer:                     "Referer",
	RetryAfter:                  "Retry-After",
	SecWebSocketKey:             "Sec-WebSocket-Key",
	Server:                      "Server",
	SetCookie:                   "Set-Cookie",
	SurrogateKey:                "Surrogate-Key",
	TE:                          "TE",
	Traceparent:                 "traceparent",
	Tracestate:                  "tracestate",
	Trailer:                     "Trailer",
	TransferEncoding:            "Transfer-Encoding",
	Upgrade:                     "Upgrade",
	UserAgent:                   "User-Agent",
	Vary:                        "Vary",
	Via:                         "Via",
	WWWAuthenticate:             "WWW-Authenticate",
	XForwardedFor:               "X-Forwarded-For",
	XForwardedHost:              "X-Forwarded-Host",
	XForwardedPort:              "X-Forwarded-Port",
	XForwardedProto:             "X-Forwarded-Proto",
	XRequestID:                  "X-Request-Id",
}

// beginnings are the lines of fields up to their values.
var beginnings = func() (b [fieldIDCount]string) {
	for id, name := range spellings {
		b[id] = name + ": "
	}
	return b
}()

const longestName = 30

// foldedName is a name in lower case, and for each of its bytes the bit in
// which the upper case differs: 0x20 for letters, 0 for the rest.
type foldedName struct {
	lower, mask [longestName]byte
	length      int
}

func (f *foldedName) equals(name []byte) bool {
	n := len(name)
	if n != f.length {
		return false
	}
	if n < 8 {
		for i, c := range name {
			if (c^f.lower[i])&^f.mask[i] != 0 {
				return false
			}
		}
		return true
	}
	for i := 0; ; i += 8 {
		if i > n-8 {
			i = n - 8 // the last eight bytes, some of them again
		}
		differ := binary.LittleEndian.Uint64(name[i:]) ^ binary.LittleEndian.Uint64(f.lower[i:i+8])
		if differ&^binary.LittleEndian.Uint64(f.mask[i:i+8]) != 0 {
			return false
		}
		if i == n-8 {
			return true
		}
	}
}

// nameHash tells names apart by length, first and last two letters: with the
// table four times larger than the number of names, few collide.
func nameHash(name []byte) uint8 {
	n := len(name)
	const fold = 0x20
	return uint8(n)*29 + (name[0]|fold)*7 + (name[n-2]|fold)*11 + (name[n-1]|fold)*3
}

var names, nameSlots = indexNames()

// indexNames fills the table that LookupField probes linearly; uint8
// arithmetic wraps around its end.
func indexNames() (names [fieldIDCount]foldedName, slots [256]FieldID) {
	for id := Unknown + 1; id < fieldIDCount; id++ {
		name, f := spellings[id], &names[id]
		f.length = len(name)
		for i := range len(name) {
			f.lower[i] = ascii.Lower[name[i]]
			if ascii.Lower[name[i]] >= 'a' && ascii.Lower[name[i]] <= 'z' {
				f.mask[i] = 'a' - 'A'
			}
		}
		at := nameHash([]byte(name))
		for slots[at] != Unknown {
			at++
		}
		slots[at] = id
	}
	return names, slots
}
