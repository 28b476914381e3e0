package config

import (
	"fmt"

	"gateway/listener"
)

// Admin says where operators connect, and who may.
type Admin struct {
	// "host:port", "unix:/path", or "https://host:port" with a certificate;
	// "off" for none. An address that other machines can reach needs a token,
	// or https:// and client_ca.
	Address OptionalAddress `toml:"address" default:"127.0.0.1:9180"`

	// Whoever sends it as "Authorization: Bearer TOKEN" may do everything. At
	// least 16 characters; take it from a file or a variable. Without tokens
	// everybody who can connect may do everything.
	Token string `toml:"token" secret:"true"`

	// Whoever sends this one may only look: metrics, health, status, history
	// and events, but neither the configuration nor profiles. Without token
	// nobody can do more than that.
	ReadToken string `toml:"read_token" secret:"true"`

	// Certificates of an https:// address, as PEM files. They are watched.
	Certificates []listener.Certificate `toml:"certificates"`

	// A PEM file with the authorities that sign the certificates of operators,
	// who must then show one. Where tokens are set too, both are needed.
	ClientCA string `toml:"client_ca"`

	// Profiles can be taken, at /debug/pprof/: they cost some time, and tell
	// much about the process.
	Profiles bool `toml:"pprof" default:"true"`
}

// minToken is the fewest characters of a token.
const minToken = 16

// UnmarshalTOML reads an address; all else has its default. It accepts any
// table: the configuration reads its keys.
func (a *Admin) UnmarshalTOML(v any) error {
	*a = Admin{Profiles: true}
	switch v := v.(type) {
	case string:
		return a.Address.UnmarshalText([]byte(v))
	case map[string]any:
		return a.Address.UnmarshalText([]byte("127.0.0.1:9180"))
	}
	return fmt.Errorf(`unexpected %v; want an address such as "127.0.0.1:9180", "off", or a table with address, token, read_token, certificates, client_ca and pprof`, v)
}

// TLS are the certificates and rules of an https:// address, the zero value
// for others.
func (a *Admin) TLS() listener.TLS {
	if !a.Address.Secure {
		return listener.TLS{}
	}
	return listener.TLS{Certificates: a.Certificates, MinVersion: "1.2", ClientCA: a.ClientCA, Watch: true}
}

// controlled reports whether not everybody who can connect may do everything.
func (a *Admin) controlled() bool {
	return a.Token != "" || a.ReadToken != "" || a.Address.Secure && a.ClientCA != ""
}

// Check reports tokens that are none, and certificates without a file.
func (a *Admin) Check(report func(key, problem string)) {
	for _, t := range [...]struct{ key, text string }{{"token", a.Token}, {"read_token", a.ReadToken}} {
		if t.text == "" {
			continue
		}
		if len(t.text) < minToken {
			report(t.key, fmt.Sprintf("has %d characters; want at least %d, such as the output of: openssl rand -hex 32", len(t.text), minToken))
		}
		for _, c := range []byte(t.text) {
			if c <= ' ' || c >= 0x7f {
				report(t.key, "has a character that no header field can carry; want letters, digits and punctuation")
				break
			}
		}
	}
	if a.Token != "" && a.Token == a.ReadToken {
		report("read_token", "is the same as token; want another one")
	}
	files := listener.TLS{Certificates: a.Certificates}
	files.Check(report)
	if a.Address.Secure && len(a.Certificates) == 0 {
		report("address", `TLS needs a certificate; want certificates = [{ cert = "admin.pem", key = "admin.key" }] in [admin]`)
	}
}

// checkAdmin reports an address that is open to everybody.
func (c *Config) checkAdmin(r *reporter) {
	a := &c.Admin
	if r.failed("admin") || !a.Address.On() || loopback(a.Address.Address) || a.controlled() {
		return
	}
	r.problem(adminKey(r), fmt.Sprintf(`%q can be reached from other machines, and everybody could do everything there; `+
		`want "127.0.0.1:9180" or "unix:/path", or [admin] with a token, or with https:// and client_ca; and probes = ":9181" for Prometheus and orchestrators`, a.Address))
}

// warnAdmin reports what does not protect.
func (c *Config) warnAdmin(r *reporter) {
	a := &c.Admin
	switch {
	case !a.Address.On() || a.Address.Secure:
	case len(a.Certificates) > 0:
		r.warning("admin.certificates", `has no effect; write the address as "https://:9180"`)
	case a.ClientCA != "":
		r.warning("admin.client_ca", `has no effect; write the address as "https://:9180"`)
	case !loopback(a.Address.Address):
		r.warning(adminKey(r), "tokens are sent in the clear, and everybody on the way can read them; give certificates, and write the address with https://")
	}
}

// adminKey is where the file has the address.
func adminKey(r *reporter) string {
	if _, table := r.lines["admin.address"]; table {
		return "admin.address"
	}
	return "admin"
}
