package accesslog

import (
	"strconv"
	"time"

	"gateway/internal/clock"
)

// appendTextLine appends the record as a line for people. It begins as the
// combined format of Apache and nginx does, so that their tools read it:
//
//	203.0.113.9 - - [02/Jan/2026:03:04:05 +0000] "GET /users?page=2 HTTP/1.1" 200 512 "-" "curl/8.0"
//	time=0.001234/0.000010/0.001200/0.000024 reason="done" route="users" host="api.example.com"
//	server="10.0.0.2:8080" attempts=1 in=0 tls=on peer="10.0.0.1:5123" id="…" trace="…"
//
// on one line. The times are in seconds and as in the JSON format: the whole,
// until the request was forwarded, until the head of the response had come, and
// the rest, "-" for what was not reached. cache="…" follows the
// reason on routes that cache, and limit="…" where a policy refused the request.
func (l *Logger) appendTextLine(b []byte, r *Record) []byte {
	if r.Client.IsValid() {
		b = r.Client.WithZone("").AppendTo(b)
	} else {
		b = append(b, '-')
	}
	b = append(b, " - - ["...)
	b = clock.WallAt(r.Start).AppendFormat(b, "02/Jan/2006:15:04:05 -0700")
	b = append(b, `] "`...)
	b = appendRequestLine(b, r, l.query)
	b = append(b, `" `...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.BytesOut, 10)
	b = appendQuoted(b, " ", view(r.Referer), maxReferer)
	b = appendQuoted(b, " ", view(r.UserAgent), maxAgent)

	whole, before, origin, body := r.phases()
	b = appendPhase(b, " time=", whole)
	b = appendPhase(b, "/", before)
	b = appendPhase(b, "/", origin)
	b = appendPhase(b, "/", body)
	b = appendQuoted(b, " reason=", r.Reason, maxName)
	if r.Cache != "" {
		b = appendQuoted(b, " cache=", r.Cache, maxName)
	}
	if r.Limit != "" {
		b = appendQuoted(b, " limit=", r.Limit, maxName)
	}
	b = appendQuoted(b, " route=", r.Route, maxName)
	b = appendQuoted(b, " host=", view(r.Host), maxHost)
	b = appendQuoted(b, " server=", r.Server, maxName)
	b = append(b, " attempts="...)
	b = strconv.AppendInt(b, int64(r.Attempts), 10)
	b = append(b, " in="...)
	b = strconv.AppendInt(b, r.BytesIn, 10)
	if r.Secure {
		b = append(b, " tls=on"...)
	} else {
		b = append(b, " tls=off"...)
	}
	b = append(b, ` peer="`...)
	if r.Peer.IsValid() {
		b = appendPeer(b, r)
	} else {
		b = append(b, '-')
	}
	b = append(b, '"')
	b = appendQuoted(b, " id=", view(r.ID), maxID)
	b = appendQuoted(b, " trace=", view(r.TraceID), maxID)
	return append(b, '\n')
}

// appendRequestLine appends the request line as far as it is known, "-" when
// nothing of it is.
func appendRequestLine(b []byte, r *Record, query bool) []byte {
	if len(r.Method) == 0 {
		return append(b, '-')
	}
	b = appendText(b, view(r.Method), maxMethod)
	b = append(b, ' ')
	b = appendText(b, view(r.Path), maxPath)
	if query && len(r.Query) > 0 {
		b = append(b, '?')
		b = appendText(b, view(r.Query), maxQuery)
	}
	b = append(b, ' ')
	return appendText(b, r.Protocol, maxName)
}

func appendQuoted(b []byte, before, s string, limit int) []byte {
	b = append(b, before...)
	if s == "" {
		return append(b, `"-"`...)
	}
	b = append(b, '"')
	b = appendText(b, s, limit)
	return append(b, '"')
}

func appendPhase(b []byte, before string, d time.Duration) []byte {
	b = append(b, before...)
	if d < 0 {
		return append(b, '-')
	}
	return appendSeconds(b, d)
}
