package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"gateway/proxy"
	"gateway/upstream"
)

// Handler answers at an address. refused is told of requests that were not let
// through, with the reason; nil for nobody.
func Handler(c Control, a Access, refused func(r *http.Request, why string)) http.Handler {
	if refused == nil {
		refused = func(*http.Request, string) {}
	}
	mux := http.NewServeMux()
	metrics := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		c.WriteMetrics(w)
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !c.Ready() {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "not ready\n")
			return
		}
		io.WriteString(w, "ok\n")
	})
	if !a.All {
		mux.HandleFunc("GET /metrics", metrics)
		return mux
	}

	g := newGuard(a, refused)
	handle := func(pattern string, least role, h http.HandlerFunc) { mux.HandleFunc(pattern, g.only(least, h)) }
	handle("GET /metrics", reader, metrics)
	handle("GET /healthz", reader, func(w http.ResponseWriter, _ *http.Request) {
		h := c.Health()
		status := http.StatusOK
		if h.Status != "healthy" {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, h)
	})
	handle("GET /status", reader, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, c.Status())
	})
	handle("GET /history", reader, since(func(n uint64) any { return c.History(n) }))
	handle("GET /events", reader, since(func(n uint64) any { return c.Events(n) }))
	handle("GET /explain", reader, explain(c))
	handle("GET /config", operator, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/toml; charset=utf-8")
		w.Write(c.Config())
	})
	control(c, handle)
	if a.Profiles {
		profiles(handle)
	}
	dashboard(mux)
	return g.sameOrigin(!g.tokens && a.Keys == nil, mux)
}

// control adds what changes something.
func control(c Control, handle func(pattern string, least role, h http.HandlerFunc)) {
	handle("POST /reload", operator, func(w http.ResponseWriter, r *http.Request) {
		changes, err := c.Reload(context.WithoutCancel(r.Context())) // whoever asked may leave
		if err != nil {
			writeJSON(w, http.StatusUnprocessableEntity, map[string]any{
				"result": "rejected", "errors": strings.Split(strings.TrimSpace(err.Error()), "\n")})
			return
		}
		if changes == nil {
			changes = []string{}
		}
		writeJSON(w, http.StatusOK, map[string]any{"result": "applied", "changes": changes})
	})
	order := func(o upstream.Order) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			pool, server := r.FormValue("upstream"), r.FormValue("server")
			if pool == "" || server == "" {
				problem(w, http.StatusBadRequest, "upstream and server are required: POST "+r.URL.Path+"?upstream=NAME&server=ADDRESS")
				return
			}
			if err := c.SetOrder(pool, server, o); err != nil {
				problem(w, http.StatusNotFound, err.Error())
				return
			}
			writeJSON(w, http.StatusOK, map[string]any{"upstream": pool, "server": server, "result": o.String()})
		}
	}
	handle("POST /drain", operator, order(upstream.Drained))
	handle("POST /disable", operator, order(upstream.Disabled))
	handle("POST /enable", operator, order(upstream.Enabled))
	handle("POST /weight", operator, func(w http.ResponseWriter, r *http.Request) {
		pool, server := r.FormValue("upstream"), r.FormValue("server")
		weight, err := strconv.Atoi(r.FormValue("weight"))
		if pool == "" || server == "" || err != nil || weight < 0 || weight > upstream.MaxWeight {
			problem(w, http.StatusBadRequest, fmt.Sprintf("upstream, server and weight, 0 to %d, are required: POST /weight?upstream=NAME&server=ADDRESS&weight=NUMBER", upstream.MaxWeight))
			return
		}
		if err := c.SetWeight(pool, server, weight); err != nil {
			problem(w, http.StatusNotFound, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, map[string]any{"upstream": pool, "server": server, "weight": weight})
	})
	handle("POST /purge", operator, func(w http.ResponseWriter, r *http.Request) {
		p := proxy.Purge{
			URL: r.FormValue("url"), Prefix: r.FormValue("prefix"), Host: r.FormValue("host"), Tag: r.FormValue("tag"),
			All: r.FormValue("all") == "true", Soft: r.FormValue("soft") == "true",
		}
		if err := c.Purge(p); err != nil {
			problem(w, http.StatusBadRequest, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, map[string]any{"result": "purged", "soft": p.Soft})
	})
}

// since answers with what is newer than ?since=, a sequence.
func since(newer func(uint64) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var n uint64
		if v := r.FormValue("since"); v != "" {
			var err error
			if n, err = strconv.ParseUint(v, 10, 64); err != nil {
				problem(w, http.StatusBadRequest, fmt.Sprintf("since is %q; want a number", v))
				return
			}
		}
		writeJSON(w, http.StatusOK, newer(n))
	}
}

const index = `gateway admin: a dashboard for browsers, and

GET  /metrics         Prometheus text
GET  /livez           the process lives
GET  /readyz          listeners serve, no shutdown has begun
GET  /healthz         every part, 503 when one is unhealthy
GET  /status          routes, pools and servers
GET  /history         samples of the last 15 minutes: ?since=NUMBER
GET  /events          the newest lines of the log: ?since=NUMBER
GET  /explain         what would become of a request: ?url=URL&method=GET&header=NAME:VALUE&client=ADDRESS
GET  /config          the running configuration, secrets masked
POST /reload          read the configuration file anew
POST /drain           no new requests for a server: ?upstream=NAME&server=ADDRESS
POST /disable         the same, and neither checks nor idle connections: ?upstream=NAME&server=ADDRESS
POST /enable          the opposite of both
POST /weight          another weight for a server: ?upstream=NAME&server=ADDRESS&weight=NUMBER, 0 for the configured one
POST /purge           stored responses: ?url=URL, prefix=HOST/PATH, host=HOST, tag=TAG or all=true; soft=true: count as stale
GET  /debug/pprof/    profiles: cpu, heap, goroutine, block, mutex
`

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	encode(w, status, v)
}

func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	encode(w, status, map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail})
}

func encode(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // people read it
	e.SetIndent("", "  ")
	e.Encode(v)
}
