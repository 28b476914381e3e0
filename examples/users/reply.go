package users

import (
	"strconv"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/valyala/fasthttp"
)

// maxPooledBody is the largest buffer that goes back to the pool; a full list
// of ordinary users takes a tenth.
const maxPooledBody = 256 << 10

// reply is what a request needs to build its answer. Replies are pooled:
// nothing keeps one, or a slice of one, past release.
type reply struct {
	page     Page
	body     []byte
	etag     []byte
	keys     []byte // Surrogate-Key
	date     []byte
	modified time.Time // zero: not known
}

// A new reply has room for an ordinary full list, so that it does not grow by
// steps.
var replies = sync.Pool{New: func() any {
	return &reply{
		page: Page{Users: make([]User, 0, maxSize+1)}, // one more: see Page.trim
		body: make([]byte, 0, 24<<10),
		etag: make([]byte, 0, 64),
		keys: make([]byte, 0, 2<<10),
		date: make([]byte, 0, 32),
	}
}}

func acquireReply() *reply { return replies.Get().(*reply) }

// release resets r and gives it back.
func (r *reply) release() {
	if cap(r.body) > maxPooledBody {
		return
	}
	r.reset()
	replies.Put(r)
}

func (r *reply) reset() {
	r.page.Reset()
	r.body, r.etag, r.keys, r.date = r.body[:0], r.etag[:0], r.keys[:0], r.date[:0]
	r.modified = time.Time{}
}

// addKey appends a surrogate key. Their number is bounded by the page: a list
// of 100 users with ids of 19 digits makes 2,600 bytes.
func (r *reply) addKey(key string) {
	if len(r.keys) > 0 {
		r.keys = append(r.keys, ' ')
	}
	r.keys = append(r.keys, key...)
}

func (r *reply) addUserKey(id int64) {
	r.addKey("user-")
	r.keys = strconv.AppendInt(r.keys, id, 10)
}

// sendRead answers a GET or HEAD with r.body, or with 304 when the client has
// it already. It allocates nothing.
func (s *Service) sendRead(ctx *fasthttp.RequestCtx, r *reply) {
	h := &ctx.Response.Header
	h.SetContentType("application/json")
	h.Set("Cache-Control", s.cacheControl)

	// Strong: replicas with the same content send the same bytes. The hash is
	// not a secret; the length makes an accident still less likely.
	r.etag = append(r.etag, '"')
	r.etag = strconv.AppendUint(r.etag, xxhash.Sum64(r.body), 36)
	r.etag = append(r.etag, '-')
	r.etag = strconv.AppendUint(r.etag, uint64(len(r.body)), 36)
	r.etag = append(r.etag, '"')
	h.SetBytesV("ETag", r.etag)
	h.SetBytesV("Surrogate-Key", r.keys)

	// A change in the same second would bear the same date, and a client that
	// has only the date would never see it (RFC 9110 §8.8.2.2). So a date is
	// sent when its second is over.
	modified := r.modified.Truncate(time.Second)
	dated := !r.modified.IsZero() && s.now().Sub(modified) >= time.Second
	if dated {
		r.date = fasthttp.AppendHTTPDate(r.date, modified)
		h.SetBytesV("Last-Modified", r.date)
	}

	if isFresh(&ctx.Request.Header, r.etag, modified, dated) {
		ctx.SetStatusCode(fasthttp.StatusNotModified)
		return
	}
	ctx.SetStatusCode(fasthttp.StatusOK)
	ctx.SetBody(r.body)
}

// isFresh evaluates the conditions of a GET (RFC 9110 §13.2.2): a date counts
// only when there is no list of tags.
func isFresh(h *fasthttp.RequestHeader, etag []byte, modified time.Time, dated bool) bool {
	if tags := h.Peek("If-None-Match"); len(tags) > 0 {
		return matches(tags, etag)
	}
	since := h.Peek("If-Modified-Since")
	if len(since) == 0 || !dated {
		return false
	}
	date, err := fasthttp.ParseHTTPDate(since)
	return err == nil && !modified.After(date)
}

// matches compares a list of entity tags with a strong one, weakly (RFC 9110
// §8.8.3.2, §13.1.2). A list that is malformed matches as far as it is well
// formed.
func matches(list, etag []byte) bool {
	for {
		for len(list) > 0 && (list[0] == ' ' || list[0] == '\t' || list[0] == ',') {
			list = list[1:]
		}
		if len(list) > 0 && list[0] == '*' {
			return true
		}
		if len(list) > 1 && list[0] == 'W' && list[1] == '/' {
			list = list[2:]
		}
		if len(list) == 0 || list[0] != '"' {
			return false
		}
		end := 1
		for end < len(list) && list[end] != '"' {
			end++
		}
		if end == len(list) {
			return false
		}
		if string(list[:end+1]) == string(etag) {
			return true
		}
		list = list[end+1:]
	}
}

// sendWrite answers a write that succeeded.
func (s *Service) sendWrite(ctx *fasthttp.RequestCtx, status int, body []byte) {
	h := &ctx.Response.Header
	h.Set("Cache-Control", "no-store")
	if status != fasthttp.StatusNoContent {
		h.SetContentType("application/json")
		ctx.SetBody(body)
	}
	ctx.SetStatusCode(status)
}

// trouble is an answer that is an error (RFC 9457).
type trouble struct {
	status    int
	detail    string
	parameter string // of the query or path
	row       int    // of the body, from 1
	field     string // of the row
}

func (s *Service) sendTrouble(ctx *fasthttp.RequestCtx, t trouble) {
	h := &ctx.Response.Header
	h.Set("Cache-Control", "no-store")
	h.SetContentType("application/problem+json")
	if t.status == fasthttp.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	r := acquireReply()
	defer r.release()
	b := append(r.body, `{"type":"about:blank","title":`...)
	b = appendQuoted(b, fasthttp.StatusMessage(t.status))
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(t.status), 10)
	b = append(b, `,"detail":`...)
	b = appendQuoted(b, t.detail)
	if t.parameter != "" {
		b = append(b, `,"parameter":`...)
		b = appendQuoted(b, t.parameter)
	}
	if t.row > 0 {
		b = append(b, `,"row":`...)
		b = strconv.AppendInt(b, int64(t.row), 10)
	}
	if t.field != "" {
		b = append(b, `,"field":`...)
		b = appendQuoted(b, t.field)
	}
	r.body = append(b, '}')
	ctx.SetStatusCode(t.status)
	ctx.SetBody(r.body)
}
