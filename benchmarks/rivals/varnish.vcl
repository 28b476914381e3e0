vcl 4.1;
import directors;
{{if .Limit}}import vsthrottle;{{end}}
{{range $i, $o := .Origins}}
backend s{{$i}} { .host = "127.0.0.1"; .port = "{{port $o}}"; }
{{end}}
{{if .Pool}}
sub vcl_init {
  new pool = directors.round_robin();
{{range $i, $o := .Origins}}  pool.add_backend(s{{$i}});
{{end}}}
{{end}}
sub vcl_recv {
{{if eq .Limit "deny"}}  if (vsthrottle.is_denied(client.ip, 1, 3600s)) { return (synth(429, "Too Many Requests")); }
{{else if eq .Limit "allow"}}  if (vsthrottle.is_denied(client.ip, 100000000, 1s)) { return (synth(429, "Too Many Requests")); }
{{end}}{{if .Pool}}  set req.backend_hint = pool.backend();
{{end}}  return ({{if .Cache}}hash{{else}}pass{{end}});
}
sub vcl_backend_response {
{{if .Gzip}}  set beresp.do_gzip = true;{{end}}
}
