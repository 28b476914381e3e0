// Package wire handles HTTP/1.1 messages as bytes: a strict one-pass parser,
// an index of the fields, edits to them, message framing and the chunked
// transfer coding (RFC 9110, RFC 9112).
//
// A message is its raw bytes, an index of its fields and a list of edits.
// Field order and spelling survive; what was not edited is copied in ranges
// of the original bytes. The start line and the framing of the body are
// always written anew by whoever sends a message on, so that nothing which a
// lenient parser tolerated can travel further.
//
// Nothing here does I/O, takes locks or keeps global state. The parsers
// allocate nothing once their index has grown to the usual size; every slice
// that they return points into the bytes that were parsed and is valid as
// long as those are.
//
// Where the RFCs leave a choice, the parser takes the one that two servers
// cannot read differently:
//
//   - Content-Length may appear once, with at most 18 digits; two that agree
//     are refused like two that do not. Transfer-Encoding is "chunked" once, or
//     the message is refused. Both together are refused.
//   - A host name consists of unreserved characters, an IP literal is an IPv6
//     address without zone, a port has no leading zeros. The trailing dot of a
//     name is dropped from Request.Host, because the name is the same site with
//     it and must not find other routes.
//   - The authority of an absolute target must be that of the Host field. Its
//     scheme (http or https) is not used.
//   - A path may not begin with two slashes, neither as received nor after
//     normalisation. Empty segments elsewhere stay.
//   - Any Upgrade to another version of HTTP is refused, also one that Connection
//     does not name. CONNECT and TRACE are refused with 501.
//   - Fields that a trailer section must not have are refused, not dropped.
//   - The one liberty: a status line may lack its reason phrase together with
//     the space before it.
package wire
