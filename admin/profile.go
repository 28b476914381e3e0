package admin

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strconv"
	"time"
)

// profiles adds those of the process, for operators.
func profiles(handle func(pattern string, least role, h http.HandlerFunc)) {
	handle("GET /debug/pprof/", operator, pprof.Index)
	handle("GET /debug/pprof/cmdline", operator, pprof.Cmdline)
	handle("GET /debug/pprof/profile", operator, pprof.Profile)
	handle("GET /debug/pprof/symbol", operator, pprof.Symbol)
	handle("GET /debug/pprof/trace", operator, pprof.Trace)
	handle("GET /debug/pprof/block", operator, block)
	handle("GET /debug/pprof/mutex", operator, mutex)
}

// One of a kind for all servers: the rates are the process's.
var (
	block = sampled(func(on bool) { runtime.SetBlockProfileRate(rate(on, 10_000)) }, "block")
	mutex = sampled(func(on bool) { runtime.SetMutexProfileFraction(rate(on, 5)) }, "mutex")
)

// sampled serves a profile whose sampling costs something: it is switched on
// for ?seconds= (default 5, at most 60) and off again.
func sampled(set func(on bool), name string) http.HandlerFunc {
	busy := make(chan struct{}, 1)
	return func(w http.ResponseWriter, r *http.Request) {
		seconds := 5
		if v := r.FormValue("seconds"); v != "" {
			var err error
			if seconds, err = strconv.Atoi(v); err != nil || seconds < 1 || seconds > 60 {
				problem(w, http.StatusBadRequest, fmt.Sprintf("seconds is %q; want 1 to 60", v))
				return
			}
		}
		select {
		case busy <- struct{}{}:
			defer func() { <-busy }()
		default:
			problem(w, http.StatusConflict, "this profile is being taken already")
			return
		}
		set(true)
		defer set(false)
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
		case <-r.Context().Done():
			return
		}
		q := r.URL.Query()
		q.Del("seconds") // would ask for a difference
		r.URL.RawQuery = q.Encode()
		r.Form = nil
		pprof.Handler(name).ServeHTTP(w, r)
	}
}

func rate(on bool, r int) int {
	if on {
		return r
	}
	return 0
}
