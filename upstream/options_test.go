package upstream

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"gateway/internal/unit"
)

// defaults are options as a configuration gives them that names servers alone.
func defaults(servers ...string) *Options {
	o := &Options{
		Balance:           "round_robin",
		TLS:               TLSOptions{Verify: true},
		ConnectTimeout:    5 * time.Second,
		FirstByteTimeout:  time.Minute,
		BetweenTimeout:    time.Minute,
		KeepaliveIdle:     time.Minute,
		MaxIdle:           256,
		MaxResponseHeader: 64 * unit.KiB,
		Resolve:           10 * time.Second,
		QueueTimeout:      time.Second,
		Retry:             RetryOptions{Attempts: 2, Budget: 20, MinPerSecond: 10},
	}
	for _, address := range servers {
		o.Servers = append(o.Servers, ServerOptions{Address: address, Weight: 1})
	}
	return o
}

func TestTrueHasTheDefaultsOfTheTags(t *testing.T) {
	for _, options := range []any{DefaultHealth(), DefaultEject(), DefaultAdaptive()} {
		defaultsAreThoseOfTags(t, reflect.ValueOf(options))
	}
}

func defaultsAreThoseOfTags(t *testing.T, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Name == "On" || f.Tag.Get("default") == "" {
			continue
		}
		got := ""
		switch value := v.Field(i).Interface().(type) {
		case time.Duration:
			got = unit.FormatDuration(value)
		default:
			got = strings.TrimSpace(formatted(value))
		}
		if want := f.Tag.Get("default"); got != want {
			t.Errorf("%s.%s is %q, its tag says %q", v.Type(), f.Name, got, want)
		}
	}
}

func TestServerIsAddressOrTable(t *testing.T) {
	var s ServerOptions
	if err := s.UnmarshalTOML("10.0.0.1:80"); err != nil || s != (ServerOptions{Address: "10.0.0.1:80", Weight: 1}) {
		t.Errorf("string: %+v, %v", s, err)
	}
	if err := s.UnmarshalTOML(map[string]any{"address": "a:1"}); err != nil {
		t.Errorf("table: %v", err)
	}
	if err := s.UnmarshalTOML(int64(8080)); err == nil || !strings.Contains(err.Error(), "unexpected 8080; want an address") {
		t.Errorf("number: %v", err)
	}
}

func TestHealthIsSwitchOrTable(t *testing.T) {
	for _, c := range []struct {
		v  any
		on bool
	}{{true, true}, {false, false}, {map[string]any{}, true}} {
		h := HealthOptions{Path: "/left"}
		if err := h.UnmarshalTOML(c.v); err != nil || h.On != c.on {
			t.Errorf("%v: on is %v, %v", c.v, h.On, err)
		}
	}
	var h HealthOptions
	if err := h.UnmarshalTOML("/health"); err == nil || !strings.Contains(err.Error(), `unexpected "/health"; want true`) {
		t.Errorf("string: %v", err)
	}
}

func TestCheckReportsWhatDoesNotGoTogether(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string // key: beginning of the problem; "" for none
	}{
		{"fine", func(o *Options) {}, ""},
		{"no servers", func(o *Options) { o.Servers = nil }, "servers: no server"},
		{"bad address", func(o *Options) { o.Servers[1].Address = "b" }, "servers[1]: missing port"},
		{"same twice", func(o *Options) { o.Servers[1].Address = "http://a:1" }, `servers[1]: "http://a:1" is servers[0] already`},
		{"cert without key", func(o *Options) { o.Servers[0].Address = "https://a:1"; o.TLS.Cert = "c.pem" }, "tls.key: missing"},
		{"key without cert", func(o *Options) { o.Servers[0].Address = "https://a:1"; o.TLS.Key = "c.key" }, "tls.cert: missing"},
		{"TLS for nobody", func(o *Options) { o.TLS.ServerName = "x" }, "tls: no server speaks TLS"},
		{"lookups too often", func(o *Options) { o.Resolve = time.Millisecond }, "resolve: 1ms is too often"},
		{"host with path", func(o *Options) { o.Host = "a/b" }, "host: unexpected host"},
		{"host with line end", func(o *Options) { o.Host = "a\r\nX: y" }, "host: unexpected host"},
		{"relative check path", func(o *Options) { o.Health = DefaultHealth(); o.Health.Path = "health" }, "health.path: unexpected path"},
		{"check path with space", func(o *Options) { o.Health = DefaultHealth(); o.Health.Path = "/a b" }, "health.path: unexpected path"},
		{"check host", func(o *Options) { o.Health = DefaultHealth(); o.Health.Host = "a b" }, "health.host: unexpected host"},
		{"check field that frames", func(o *Options) {
			o.Health = DefaultHealth()
			o.Health.Headers = map[string]string{"Content-Length": "1"}
		}, "health.headers.Content-Length: can't be set"},
		{"check field with line end", func(o *Options) { o.Health = DefaultHealth(); o.Health.Headers = map[string]string{"X": "a\r\nb"} }, "health.headers.X: unexpected control"},
		{"check field without a name", func(o *Options) { o.Health = DefaultHealth(); o.Health.Headers = map[string]string{"X Y": ""} }, "health.headers.X Y: unexpected field name"},
		{"cookie name", func(o *Options) { o.Sticky.Cookie = "a b" }, "sticky.cookie: unexpected cookie name"},
		{"short secret", func(o *Options) { o.Sticky = StickyOptions{Cookie: "a", Secret: "short"} }, "sticky.secret: has 5 characters"},
		{"limits crossed", func(o *Options) { o.Adaptive = AdaptiveOptions{On: true, Min: 5, Max: 4} }, "adaptive.min: 5 is above"},
		{"path of no check", func(o *Options) { o.Health.Path = "" }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := defaults("a:1", "b:1")
			c.change(o)
			var got []string
			o.Check(func(key, problem string) { got = append(got, key+": "+problem) })
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], c.want)) {
				t.Errorf("reported %q, want %q", got, c.want)
			}
		})
	}
}

func TestSwitchesTakeTables(t *testing.T) {
	for _, v := range []any{"on", int64(1), []any{}} {
		var eject EjectOptions
		var adaptive AdaptiveOptions
		if eject.UnmarshalTOML(v) == nil || adaptive.UnmarshalTOML(v) == nil {
			t.Errorf("%v is taken", v)
		}
	}
	for v, on := range map[any]bool{true: true, false: false} {
		var eject EjectOptions
		var adaptive AdaptiveOptions
		var sticky StickyOptions
		if eject.UnmarshalTOML(v) != nil || adaptive.UnmarshalTOML(v) != nil || sticky.UnmarshalTOML(v) != nil {
			t.Errorf("%v is not taken", v)
		}
		if eject.On != on || adaptive.On != on || (sticky.Cookie != "") != on {
			t.Errorf("%v: %+v, %+v, %+v", v, eject, adaptive, sticky)
		}
	}
	var sticky StickyOptions
	if sticky.UnmarshalTOML("name") != nil || sticky.Cookie != "name" || sticky.UnmarshalTOML(int64(1)) == nil {
		t.Errorf("%+v", sticky)
	}
}
