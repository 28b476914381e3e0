package admin

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// files are the dashboard: one page, its style and its scripts, as they are
// written. It asks for the same endpoints as everybody else, with the token
// that the operator gives it, and nothing of it comes from elsewhere.
//
//go:embed dashboard
var files embed.FS

// policy lets the page load what is beside it, ask where it comes from, and do
// nothing else: no inline script or style, no frame around it, no HTML made of
// text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// dashboard adds the page. It needs no token: there is nothing in it but the
// way to ask.
func dashboard(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			serveFile(w, r, "dashboard/index.html")
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, index)
	})
	list, err := fs.ReadDir(files, "dashboard")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	for _, f := range list {
		name := "dashboard/" + f.Name()
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) { serveFile(w, r, name) })
	}
}

func serveFile(w http.ResponseWriter, r *http.Request, name string) {
	text, err := files.ReadFile(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	sum := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache") // ask again: another version may run
	h.Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	w.Write(text)
}
