package middleware

import (
	"fmt"

	"gateway/exchange"
	"gateway/internal/match"
)

// Rewrite changes the path that is forwarded.
type Rewrite struct {
	strip, add string // normalised, without a slash at the end
}

// NewRewrite builds the stage, nil when the options ask for nothing. The
// options must have passed their Check.
func NewRewrite(o RewriteOptions) *Rewrite {
	r := Rewrite{strip: plainPrefix(o.StripPrefix), add: plainPrefix(o.AddPrefix)}
	if r.strip == "" && r.add == "" {
		return nil
	}
	return &r
}

func plainPrefix(text string) string {
	if text == "" {
		return ""
	}
	prefix, err := match.ParsePrefix(text)
	if err != nil {
		panic(fmt.Sprintf("BUG: prefix %q was not checked: %v", text, err))
	}
	return prefix
}

// Before sets x.Path. The path before it is normalised, and so is the new one:
// it starts with exactly one slash, since "//host" could be read as an
// authority further on. The "*" of OPTIONS * stays.
func (r *Rewrite) Before(x *exchange.Exchange) {
	if r == nil || len(x.Path) == 0 || x.Path[0] != '/' {
		return
	}
	path := x.Path
	if n := len(r.strip); n > 0 && len(path) >= n && string(path[:n]) == r.strip && (len(path) == n || path[n] == '/') {
		path = path[n:]
		for len(path) > 1 && path[0] == '/' && path[1] == '/' {
			path = path[1:]
		}
		if len(path) == 0 {
			path = root
		}
	}
	if r.add != "" {
		// Short paths, the usual ones, are joined on the stack.
		var scratch [512]byte
		path = x.Keep(append(append(scratch[:0], r.add...), path...))
	}
	x.Path = path
}

var root = []byte("/") // never written to
