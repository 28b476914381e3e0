package wire

// Fault says why a message was refused; NoFault is the zero value. Requests
// that are refused are answered with Status and the connection is closed;
// responses that are refused become 502.
type Fault uint8

const (
	NoFault Fault = iota
	BadRequestLine
	BadMethod
	BadTarget
	BadVersion
	TargetTooLong
	HeaderTooLarge
	TooManyFields
	BareLF
	BareCR
	ControlByte
	ObsoleteFold
	BadFieldName
	SpaceBeforeColon
	MissingColon
	MissingHost
	DuplicateHost
	BadHost
	HostMismatch
	Userinfo
	Fragment
	ConnectRefused
	TraceRefused
	BadContentLength
	DuplicateContentLength
	LengthAndCoding
	UnknownCoding
	CodingInHTTP10
	BadExpect
	UpgradeRefused
	BadChunk
	BadTrailer
	BadStatusLine
	BadPercent
	EncodedSlash
	AboveRoot
	faultCount
)

var faults = [faultCount]struct {
	status int
	text   string
}{
	NoFault:                {0, "no fault"},
	BadRequestLine:         {400, "malformed request line"},
	BadMethod:              {400, "malformed method"},
	BadTarget:              {400, "malformed request target"},
	BadVersion:             {505, "HTTP version is neither 1.0 nor 1.1"},
	TargetTooLong:          {414, "request target too long"},
	HeaderTooLarge:         {431, "header too large"},
	TooManyFields:          {431, "too many header fields"},
	BareLF:                 {400, "line does not end with CRLF"},
	BareCR:                 {400, "carriage return without line feed"},
	ControlByte:            {400, "control byte in header"},
	ObsoleteFold:           {400, "header field continued on another line"},
	BadFieldName:           {400, "malformed header field name"},
	SpaceBeforeColon:       {400, "white space between field name and colon"},
	MissingColon:           {400, "header line without colon"},
	MissingHost:            {400, "no Host field"},
	DuplicateHost:          {400, "more than one Host field"},
	BadHost:                {400, "malformed Host"},
	HostMismatch:           {400, "Host field contradicts the request target"},
	Userinfo:               {400, "user information in authority"},
	Fragment:               {400, "fragment in request target"},
	ConnectRefused:         {501, "method CONNECT is not supported"},
	TraceRefused:           {501, "method TRACE is not supported"},
	BadContentLength:       {400, "malformed Content-Length"},
	DuplicateContentLength: {400, "more than one Content-Length field"},
	LengthAndCoding:        {400, "both Content-Length and Transfer-Encoding"},
	UnknownCoding:          {501, "transfer coding other than a single chunked"},
	CodingInHTTP10:         {400, "Transfer-Encoding in HTTP/1.0"},
	BadExpect:              {417, "expectation other than 100-continue"},
	UpgradeRefused:         {400, "upgrade to another version of HTTP"},
	BadChunk:               {400, "malformed chunk"},
	BadTrailer:             {400, "malformed or forbidden trailer"},
	BadStatusLine:          {400, "malformed status line"},
	BadPercent:             {400, "malformed percent-encoding in path"},
	EncodedSlash:           {400, "encoded slash in path"},
	AboveRoot:              {400, "path leads above the root"},
}

// Status is the status code that a client gets for a request with this fault:
// 400, 414, 417, 431, 501 or 505; 0 for NoFault. (CONNECT and TRACE are 501,
// not 405: no resource here has them, so there is no Allow to offer.)
func (f Fault) Status() int { return faults[f].status }

// String names the fault in a few words, fit for a log line and for the
// detail of a problem document.
func (f Fault) String() string { return faults[f].text }
