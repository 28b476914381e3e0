package metrics

import (
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
)

// ContentType is the Content-Type of what WritePrometheus writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// buffers are kept between scrapes, unless they have grown beyond maxBuffer.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const maxBuffer = 4 << 20

// WritePrometheus writes all families, sorted by name, with HELP and TYPE, in
// the text format of Prometheus and in one Write, whose error it returns.
// Families without a sample are left out. No lock is held while Collect
// functions run and while w is written to.
func (r *Registry) WritePrometheus(w io.Writer) error {
	buffer := buffers.Get().(*[]byte)
	b := (*buffer)[:0]
	rest := runtimeFamilies()
	for _, f := range r.snapshot() {
		for len(rest) > 0 && rest[0].name < f.name {
			b, rest = append(b, rest[0].text...), rest[1:]
		}
		b = f.appendTo(b)
	}
	for _, t := range rest {
		b = append(b, t.text...)
	}
	_, err := w.Write(b)
	if *buffer = b; cap(b) <= maxBuffer {
		buffers.Put(buffer)
	}
	return err
}

func (f *family) appendTo(b []byte) []byte {
	start := len(b)
	b = appendHead(b, f.name, f.help, f.kind)
	empty := len(b)
	for _, s := range f.sorted {
		b = s.source.appendTo(b, f.name, s.labels)
	}
	if f.collect != nil {
		s := Samples{b: b, name: f.name}
		f.collect(&s)
		b = s.b
	}
	if len(b) == empty {
		return b[:start]
	}
	return b
}

func appendHead(b []byte, name, help string, k kind) []byte {
	b = append(b, "# HELP "...)
	b = append(b, name...)
	b = append(b, ' ')
	b = appendEscaped(b, help, false)
	b = append(b, "\n# TYPE "...)
	b = append(b, name...)
	b = append(b, ' ')
	b = append(b, k...)
	return append(b, '\n')
}

// Samples receives the samples of one family during a scrape. It must not be
// kept.
type Samples struct {
	b     []byte
	name  string
	names []string                             // of the labels, as the first sample had them
	each  func(value float64, labels []string) // takes the samples instead of b, see Registry.Each
}

// Add gives a sample: its value and its labels, names and values in turn. The
// names and their order are the same for all samples of a family, and no two
// samples have the same values.
func (s *Samples) Add(value float64, labels ...string) {
	s.names = checkLabels(s.name, s.names, labels)
	if s.each != nil {
		s.each(value, labels)
		return
	}
	s.b = append(s.b, s.name...)
	if len(labels) > 0 {
		s.b = append(s.b, '{')
		s.b = appendLabels(s.b, labels)
		s.b = append(s.b, '}')
	}
	s.b = append(s.b, ' ')
	s.b = appendValue(s.b, value)
	s.b = append(s.b, '\n')
}

// appendName appends name and suffix, labels and an extra label if there are
// any, and the space before the value.
func appendName(b []byte, name, suffix, labels, extra string) []byte {
	b = append(b, name...)
	b = append(b, suffix...)
	if labels != "" || extra != "" {
		b = append(b, '{')
		b = append(b, labels...)
		if labels != "" && extra != "" {
			b = append(b, ',')
		}
		b = append(b, extra...)
		b = append(b, '}')
	}
	return append(b, ' ')
}

func appendUint(b []byte, name, labels string, v uint64) []byte {
	b = appendName(b, name, "", labels, "")
	b = strconv.AppendUint(b, v, 10)
	return append(b, '\n')
}

func appendFloat(b []byte, name, labels string, v float64) []byte {
	b = appendName(b, name, "", labels, "")
	b = appendValue(b, v)
	return append(b, '\n')
}

// appendValue appends whole numbers that a float holds exactly without an
// exponent, for those who read with their eyes.
func appendValue(b []byte, v float64) []byte {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// Build registers gateway_build_info, a gauge of 1 whose labels tell the
// version given, the commit and Go's version.
func (r *Registry) Build(version string) {
	revision := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	r.Gauge("gateway_build_info", "Always 1; the labels tell what was built.",
		"version", version, "revision", revision, "go_version", runtime.Version()).Set(1)
}

// String is what WritePrometheus writes, for tests and people.
func (r *Registry) String() string {
	var text strings.Builder
	_ = r.WritePrometheus(&text) // a Builder takes everything
	return text.String()
}
