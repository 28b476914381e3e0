package config

import "time"

// Shutdown says how the gateway stops after SIGTERM or an interrupt. A second
// signal ends it at once.
type Shutdown struct {
	// How long the gateway goes on accepting connections after it has been
	// told to stop. In that time it reports that it is not ready and
	// announces the end of connections, so that load balancers send new
	// requests elsewhere. Set it to a little more than the interval of their
	// checks. "0s" stops accepting at once.
	DrainDelay time.Duration `toml:"drain_delay" default:"0s" min:"0s" max:"1h"`

	// How long requests that are being served may take after that. What has
	// not ended by then is cut off.
	Grace time.Duration `toml:"grace" default:"30s" min:"0s" max:"1h"`
}

// Reload says how a changed configuration takes effect: everything is
// validated and prepared first, and on any error the old configuration stays.
type Reload struct {
	// Watch the configuration file and reload when it changes. SIGHUP and the
	// admin listener reload in any case.
	Watch bool `toml:"watch" default:"true"`
}

// Log says what the gateway writes about itself on standard error. Requests
// are the business of the access log.
type Log struct {
	// The least severe messages that are written.
	Level string `toml:"level" default:"info" enum:"debug,info,warn,error"`

	// Lines for people, or JSON for machines.
	Format string `toml:"format" default:"text" enum:"text,json"`
}
