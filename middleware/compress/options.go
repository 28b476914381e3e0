package compress

import (
	"fmt"

	"gateway/internal/unit"
)

// Options say which responses are compressed for clients that want it, and
// how. Ranges, bodies that the origin has coded, and what Cache-Control:
// no-transform forbids are never touched.
type Options struct {
	// Content codings that are offered, "zstd", "br", "gzip" and "deflate",
	// the preferred one first. A client gets the one that it prefers itself;
	// the order here decides between those that it likes equally.
	Codings []string `toml:"codings" default:"zstd,br,gzip" enum:"zstd,br,gzip,deflate"`

	// Media types that are compressed: "application/json", "text/*", or a
	// structured suffix such as "+json". Images, video and archives are
	// compressed already; naming them here wastes CPU.
	Types []string `toml:"types" default:"text/*,application/json,application/javascript,application/xml,application/x-ndjson,application/wasm,application/x-javascript,application/vnd.ms-fontobject,font/ttf,font/otf,image/bmp,image/x-icon,image/vnd.microsoft.icon,+json,+xml"`

	// Smaller bodies are sent as they are: little would be saved. Bodies of
	// unknown length are always compressed.
	MinSize unit.Size `toml:"min_size" default:"256B" max:"1MiB"`

	// Level of zstd, from fast to small. It knows three speeds: 1 and 2, 3 to
	// 5, 6 to 9; the last costs about a third more CPU than the default and 9
	// MiB of memory for each response being compressed at the same time.
	ZstdLevel int `toml:"zstd_level" default:"3" min:"1" max:"9"`

	// Level of br (brotli), from fast to small. 4 takes half as much CPU again
	// as the default, 5 three times as much, and saves 8 %; memory grows to 3
	// MiB for each response being compressed at the same time.
	BrotliLevel int `toml:"br_level" default:"3" min:"1" max:"9"`

	// Level of gzip and deflate, from fast to small. 3 takes almost twice as much
	// CPU as the default and saves 3 %, 6 three times as much and saves 7 %, 9
	// almost twenty times as much and saves 15 %.
	GzipLevel int `toml:"gzip_level" default:"1" min:"1" max:"9"`

	// Keep the coded forms of bodies that the origin sends again and again, up to
	// 16 MiB for all routes together, so that they are coded once. The origin is
	// asked for each response as ever. Bodies that Cache-Control says no-store or
	// private of are not kept, and streamed ones (max_streams) neither.
	Memo bool `toml:"memo" default:"true"`

	// Share of the CPUs in use by the gateway above which levels fall, in two
	// steps down to 1, until it is 15 points below again: speed is worth more
	// than size then. "0%" keeps the levels.
	Busy unit.Percent `toml:"busy" default:"90%"`

	// Most streamed bodies (longer than 256 KiB, or of unknown length such as
	// server-sent events) that are compressed or decompressed at the same
	// time, all routes together; further ones are sent as they are. Each holds
	// 0.6 to 2 MiB of memory until it ends, 5 MiB at zstd_level 6 and above.
	MaxStreams int `toml:"max_streams" default:"512" min:"0" max:"1000000"`

	// What origins are asked for: "identity" asks them for bodies without a
	// coding, so that the gateway can choose one for each client and the cache
	// keeps one entry for all; "client" passes the client's Accept-Encoding
	// on, and what an origin then codes itself is passed on as it is.
	OriginEncoding string `toml:"origin_encoding" default:"identity" enum:"identity,client"`

	// Take off the coding of a response whose client does not accept it.
	Decompress bool `toml:"decompress" default:"false"`

	// A response that becomes larger when it is decompressed is cut off: the
	// client sees a broken connection.
	MaxDecompressed unit.Size `toml:"max_decompressed" default:"64MiB" min:"1B"`

	// A response of which a compressed byte becomes more bytes than this is
	// cut off once it exceeds 1 MiB. Real text stays below 100; what is made
	// to exhaust memory and bandwidth reaches a thousand and more.
	MaxRatio int `toml:"max_ratio" default:"200" min:"1" max:"1000000"`

	// Earlier responses of a route with which later ones are coded as dcz (RFC
	// 9842) for clients that still have them, such as the versions of a script
	// or the pages of a list. "origin": those that the origin marks with
	// Use-As-Dictionary. "auto" marks one itself: a response with max-age that
	// is not private and sets no cookie, until it is an hour old or its URL has
	// other content. Up to 8 of each route are kept in memory, and each that is
	// in use has encoders of up to 6 MiB.
	Dictionary string `toml:"dictionary" default:"off" enum:"off,origin,auto"`

	// Larger responses become no dictionary.
	MaxDictionary unit.Size `toml:"max_dictionary" default:"256KiB" min:"1KiB" max:"1MiB"`

	// Compress responses to requests that pages of other sites have made.
	// With false those are sent as they are, which keeps such a page from
	// learning secrets from the length of compressed answers (BREACH).
	// Browsers tell by Sec-Fetch-Site, Origin or Referer. Worth it for pages
	// that show a secret together with something that the request contained.
	CrossSite bool `toml:"cross_site" default:"true"`
}

// ListKey is the option that a list stands for, where a list is written
// instead of a table.
func (*Options) ListKey() string { return "codings" }

// Check reports codings that are missing, unknown or twice in the list, and
// patterns that are no media types.
func (o *Options) Check(report func(key, problem string)) {
	if len(o.Codings) == 0 {
		report("codings", `no coding is offered; want at least one of zstd, br, gzip and deflate, or compress = false`)
	}
	var seen [CodingCount]bool
	for _, name := range o.Codings {
		c, ok := LookupCoding([]byte(name))
		switch {
		case !ok || c == Identity || c == Dcz || name != c.String():
			report("codings", fmt.Sprintf("unknown coding %q; want zstd, br, gzip or deflate", name))
		case seen[c]:
			report("codings", fmt.Sprintf("coding %q is given twice", name))
		default:
			seen[c] = true
		}
	}
	for _, pattern := range o.Types {
		if err := CheckType(pattern); err != nil {
			report("types", err.Error())
		}
	}
}

// Level is the level of a coding.
func (o *Options) Level(c Coding) int {
	switch c {
	case Zstd:
		return o.ZstdLevel
	case Brotli:
		return o.BrotliLevel
	}
	return o.GzipLevel
}
