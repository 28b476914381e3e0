package listener

import (
	"fmt"
	"time"

	"gateway/internal/unit"
	"gateway/wire"
)

// Options are the limits and deadlines that clients meet: the table [client].
// All of them take effect on a reload, for connections that exist too, unless
// an option says otherwise.
type Options struct {
	// How many connections one client address may have at a time; further ones
	// are answered with 503 and closed. IPv6 clients are counted by their /64
	// network. 0 means no limit. Addresses in trusted_proxies and Unix sockets
	// are not limited, since many clients share them.
	MaxConnectionsPerIP int `toml:"max_connections_per_ip" default:"0" min:"0" max:"1000000"`

	// How long the head of a request may take from its first byte on, a new
	// connection to its first byte, and a TLS handshake. Answered with 408 if
	// part of a head has arrived. Slow attackers are cut off by it: keep it
	// short.
	HeaderTimeout time.Duration `toml:"header_timeout" default:"10s" min:"10ms" max:"10m"`

	// How long to wait for the next bytes of a request body. A slow client that
	// keeps sending is not cut off by it; a route's timeout bounds the whole
	// exchange.
	BodyTimeout time.Duration `toml:"body_timeout" default:"30s" min:"10ms" max:"1h"`

	// How long a connection may stay open between two requests.
	IdleTimeout time.Duration `toml:"idle_timeout" default:"75s" min:"10ms" max:"24h"`

	// How long a client may stop reading an answer before the connection is
	// cut. A slow client that keeps reading is not cut off by it.
	WriteTimeout time.Duration `toml:"write_timeout" default:"30s" min:"10ms" max:"1h"`

	// The largest head of a request in bytes: request line and fields. Larger
	// ones are answered with 431. A connection that fasthttp serves holds a buffer
	// of this size, idle or not, and keeps the value that it began with.
	MaxHeader unit.Size `toml:"max_header" default:"32KiB" min:"1KiB" max:"1MiB"`

	// The longest target of a request (path and query) in bytes. Longer ones
	// are answered with 414.
	MaxURI unit.Size `toml:"max_uri" default:"8KiB" min:"64B" max:"1MiB"`

	// Serves plain requests (a whole head, no upgrade, no Expect) without
	// fasthttp, and lets connections without TLS sleep without goroutine and
	// buffer between two requests, in a twentieth of the memory. Anything else
	// is handed to fasthttp either way. Turn it off only to find out whether it
	// is to blame for something. Connections follow what it said when they began.
	PlainFront bool `toml:"plain_front" default:"true"`

	// The largest number of fields in the head of a request. More are answered
	// with 431.
	MaxFields int `toml:"max_fields" default:"100" min:"1" max:"10000"`

	// Opens the listening sockets with SO_REUSEPORT, so that several processes
	// can listen on the same address and the kernel spreads connections over
	// them. Applies to addresses that are added afterwards; Unix sockets have
	// no such thing.
	ReusePort bool `toml:"reuse_port" default:"false"`

	// What becomes of %2F in a path: "keep" leaves it as it is, a character of
	// its segment; "decode" makes it a separator before routes are matched;
	// "reject" answers 400. Decode only if all origins do the same, else
	// requests can reach paths that the routes seem to exclude.
	EncodedSlashes string `toml:"encoded_slashes" default:"keep" enum:"keep,decode,reject"`

	// Addresses and ranges of proxies whose word about the client is taken:
	// X-Forwarded-For, X-Forwarded-Proto, Forwarded and X-Request-Id of anybody
	// else are replaced. Everybody in these ranges can claim any address, so
	// list only your own proxies. Empty means nobody.
	TrustedProxies []unit.Prefix `toml:"trusted_proxies"`
}

// Check reports contradictions between the options.
func (o *Options) Check(report func(key, problem string)) {
	if o.MaxURI >= o.MaxHeader {
		report("max_uri", fmt.Sprintf("%s does not fit into max_header (%s); want less", o.MaxURI, o.MaxHeader))
	}
}

// Limits are the bounds for the parser of heads.
func (o *Options) Limits() wire.Limits {
	l := wire.Limits{MaxTarget: int(o.MaxURI), MaxHeader: int(o.MaxHeader), MaxFields: o.MaxFields}
	switch o.EncodedSlashes {
	case "decode":
		l.EncodedSlash = wire.SlashDecode
	case "reject":
		l.EncodedSlash = wire.SlashReject
	}
	return l
}

// TLS are the certificates and rules of the https:// listeners: the table
// [tls]. All of it takes effect on a reload, for new connections.
type TLS struct {
	// Certificates with their keys, as PEM files. A client gets the first one
	// whose names cover the host that it asks for (a wildcard covers one
	// label), and the first of all when none does.
	Certificates []Certificate `toml:"certificates"`

	// The oldest version of TLS that clients may speak.
	MinVersion string `toml:"min_version" default:"1.2" enum:"1.2,1.3"`

	// A PEM file with the authorities that sign client certificates. Clients
	// must then show one. Empty means that no client is asked.
	ClientCA string `toml:"client_ca"`

	// Looks at the files every second and loads those that have changed. A file
	// that cannot be used changes nothing and is logged.
	Watch bool `toml:"watch" default:"true"`
}

// Certificate names the files of one certificate.
type Certificate struct {
	// The PEM file of the certificate, followed by those of its issuers.
	Cert string `toml:"cert"`

	// The PEM file of the private key.
	Key string `toml:"key"`
}

// Check reports certificates without a file.
func (t *TLS) Check(report func(key, problem string)) {
	for i, c := range t.Certificates {
		if c.Cert == "" {
			report(fmt.Sprintf("certificates[%d].cert", i), `missing; want a file, such as "site.pem"`)
		}
		if c.Key == "" {
			report(fmt.Sprintf("certificates[%d].key", i), `missing; want a file, such as "site.key"`)
		}
	}
}
