package accesslog

import (
	"strconv"
	"time"

	"gateway/internal/clock"
)

// appendJSONLine appends the record as an object on a line of its own.
//
//	{"time":"2026-01-02T03:04:05.678Z","route":"users","method":"GET","host":"api.example.com",
//	"path":"/users","query":"page=2","protocol":"HTTP/1.1","status":200,"reason":"done","cache":"miss",
//	"client":"203.0.113.9","peer":"10.0.0.1:5123","tls":true,"server":"10.0.0.2:8080","attempts":1,
//	"duration":0.001234,"duration_before":0.000010,"duration_origin":0.001200,"duration_body":0.000024,
//	"bytes_in":0,"bytes_out":512,"request_id":"…","trace_id":"…","user_agent":"curl/8.0","referer":"…"}
//
// Durations are in seconds: the whole, until the request was forwarded, until
// the head of the response had come, and the rest. Empty fields are left out;
// time, status, tls, attempts, duration and the bytes are always there.
func (l *Logger) appendJSONLine(b []byte, r *Record) []byte {
	b = append(b, `{"time":"`...)
	b = clock.AppendRFC3339(b, clock.WallAt(r.Start).UnixNano())
	b = append(b, '"')
	b = appendField(b, "route", r.Route, maxName)
	b = appendField(b, "method", view(r.Method), maxMethod)
	b = appendField(b, "host", view(r.Host), maxHost)
	b = appendField(b, "path", view(r.Path), maxPath)
	if l.query {
		b = appendField(b, "query", view(r.Query), maxQuery)
	}
	b = appendField(b, "protocol", r.Protocol, maxName)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = appendField(b, "reason", r.Reason, maxName)
	b = appendField(b, "cache", r.Cache, maxName)
	b = appendField(b, "limit", r.Limit, maxName)
	if r.Client.IsValid() {
		b = append(b, `,"client":"`...)
		b = r.Client.WithZone("").AppendTo(b)
		b = append(b, '"')
	}
	if r.Peer.IsValid() {
		b = append(b, `,"peer":"`...)
		b = appendPeer(b, r)
		b = append(b, '"')
	}
	b = append(b, `,"tls":`...)
	b = strconv.AppendBool(b, r.Secure)
	b = appendField(b, "server", r.Server, maxName)
	b = append(b, `,"attempts":`...)
	b = strconv.AppendInt(b, int64(r.Attempts), 10)

	whole, before, origin, body := r.phases()
	b = appendDuration(b, "duration", whole)
	b = appendDuration(b, "duration_before", before)
	b = appendDuration(b, "duration_origin", origin)
	b = appendDuration(b, "duration_body", body)
	b = append(b, `,"bytes_in":`...)
	b = strconv.AppendInt(b, r.BytesIn, 10)
	b = append(b, `,"bytes_out":`...)
	b = strconv.AppendInt(b, r.BytesOut, 10)
	b = appendField(b, "request_id", view(r.ID), maxID)
	b = appendField(b, "trace_id", view(r.TraceID), maxID)
	b = appendField(b, "user_agent", view(r.UserAgent), maxAgent)
	b = appendField(b, "referer", view(r.Referer), maxReferer)
	return append(b, "}\n"...)
}

// appendField appends a member after others, or nothing when it is empty.
func appendField(b []byte, name, s string, limit int) []byte {
	if s == "" {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return appendJSON(b, s, limit)
}

// appendDuration appends a member after others, or nothing for a phase that was
// not reached.
func appendDuration(b []byte, name string, d time.Duration) []byte {
	if d < 0 {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return appendSeconds(b, d)
}

// appendPeer appends the peer without its zone, which could be any text.
func appendPeer(b []byte, r *Record) []byte {
	if a := r.Peer.Addr(); a.Is4() || a.Is4In6() {
		b = a.Unmap().AppendTo(b)
	} else {
		b = append(b, '[')
		b = a.WithZone("").AppendTo(b)
		b = append(b, ']')
	}
	b = append(b, ':')
	return strconv.AppendUint(b, uint64(r.Peer.Port()), 10)
}
