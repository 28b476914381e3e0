package admin

import (
	"net/http"

	"gateway/proxy"
)

// explain answers what would become of a request. Nothing is sent or counted
// for it, so that whoever may read may ask.
func explain(c Control) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("url") == "" {
			problem(w, http.StatusBadRequest, "url is required: GET /explain?url=URL&method=GET&header=NAME:VALUE&client=ADDRESS")
			return
		}
		e, err := c.Explain(proxy.Question{URL: q.Get("url"), Method: q.Get("method"), Fields: q["header"], Client: q.Get("client")})
		if err != nil {
			problem(w, http.StatusBadRequest, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, e)
	}
}
