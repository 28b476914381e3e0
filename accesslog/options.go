package accesslog

import (
	"fmt"

	"gateway/internal/unit"
)

// Options say what is written about requests, and where to. The zero value
// writes nothing.
type Options struct {
	// Where lines go: "stdout", "stderr", a file, or "off". A file is created
	// if need be, in a folder that exists, readable by its owner and group. It
	// is opened anew on SIGUSR1, so that logrotate can take the old one away
	// without losing a line.
	Output string `toml:"output" default:"stdout"`

	// With json each line is an object. With text it begins as the combined
	// format of Apache and nginx, and further values follow as key=value.
	Format string `toml:"format" default:"json" enum:"json,text"`

	// The share of requests that is written. The choice depends on the request
	// id alone, so that other programs that see the id can make the same one.
	// Requests that were answered with status 500 and above, and those whose
	// answer was cut short, are always written.
	Sample unit.Percent `toml:"sample" default:"100%"`

	// The query of the URL is written. Turn it off where queries carry tokens
	// or personal data.
	Query bool `toml:"query" default:"true"`

	// Lines that wait in memory, of 1 KiB on average at most, when the output
	// is slow. Lines beyond that are dropped and counted: requests never wait
	// for the log.
	Queue int `toml:"queue" default:"8192" min:"16" max:"1048576"`
}

// UnmarshalTOML reads an output; all else has its default. It accepts any
// table: the configuration reads its keys.
func (o *Options) UnmarshalTOML(v any) error {
	*o = Options{Output: "stdout", Format: "json", Sample: 100, Query: true, Queue: 8192}
	switch v := v.(type) {
	case string:
		o.Output = v
		return nil
	case map[string]any:
		return nil
	}
	return fmt.Errorf(`unexpected %v; want "stdout", "stderr", "off", a file, or a table with output, format, sample, query and queue`, v)
}

// Check reports options that make no sense.
func (o *Options) Check(report func(key, problem string)) {
	if o.Output == "" {
		report("output", `unexpected ""; want "stdout", "stderr", "off" or a file`)
	}
}
