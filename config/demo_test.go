package config

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gateway"
)

// config.toml at the root is the first thing that a user sees. These tests
// keep its promises: every option is there, and what it says of defaults is
// true.

var (
	commented = regexp.MustCompile(`^# (\[|[a-z0-9_]+(\.[a-z0-9_]+)* +?= )`)
	stated    = regexp.MustCompile(`; default (".*"|\S+)$`)
	assigned  = regexp.MustCompile(`^([a-z0-9_.]+ += )("[^"]*"|\S+)`)
)

// demoFile is config.toml by line, with the lines that comments hide.
type demoFile struct{ lines []string }

// with is the file with some hidden lines in effect.
func (d demoFile) with(shown ...int) string {
	var b strings.Builder
	for i, line := range d.lines {
		if slices.Contains(shown, i) {
			line = strings.TrimPrefix(line, "# ")
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

func demo() (d demoFile, hidden []int) {
	d.lines = strings.Split(strings.TrimSuffix(string(gateway.DemoConfig), "\n"), "\n")
	for i, line := range d.lines {
		if commented.MatchString(line) {
			hidden = append(hidden, i)
		}
	}
	return d, hidden
}

func TestDemoConfigIsValidWithoutWarnings(t *testing.T) {
	c := parse(t, string(gateway.DemoConfig))
	if w := c.Warnings(); w != nil {
		t.Errorf("%v", w)
	}
	if len(c.Upstreams["users"].Servers) != 3 || c.Listen[0].String() != "127.0.0.1:8080" || c.Admin.Address.String() != "127.0.0.1:9180" {
		t.Errorf("not the demo's addresses: %v, %v, %v", c.Listen, c.Admin, c.Upstreams["users"].Servers)
	}
}

func TestDemoConfigHasEveryOption(t *testing.T) {
	d, hidden := demo()
	full := d.with(hidden...)
	parse(t, full)
	present := map[string]bool{}
	element := regexp.MustCompile(`\[\d+\]`)
	for key := range index(full) {
		key = element.ReplaceAllString(key, "")
		key = regexp.MustCompile(`^(upstream|cors|dependency|limit|compress|jwt|caching)\.[a-z]+`).ReplaceAllString(key, "$1.NAME")
		present[key] = true
	}
	for _, key := range optionKeys() {
		if !present[key] {
			t.Errorf("%s is missing in config.toml", key)
		}
	}
}

func TestDemoConfigStatesTrueDefaults(t *testing.T) {
	d, hidden := demo()
	header := -1 // hidden header of the table that hidden lines are in
	for i, line := range d.lines {
		if strings.HasPrefix(line, "[") {
			header = -1
		}
		if !slices.Contains(hidden, i) {
			continue
		}
		if strings.HasPrefix(line, "# [") {
			header = i
			continue
		}
		around := []int{header}
		if header >= 0 && (strings.HasPrefix(d.lines[header], "# [limit.") || strings.HasPrefix(d.lines[header], "# [jwt.")) {
			if around = append(around, header+1); i == header+1 {
				continue // a limit needs a number, a token a key: the first example stands for all
			}
		}
		before, after := parse(t, d.with(around...)), parse(t, d.with(append(around, i)...))
		changes, _ := Diff(before, after)
		_, comment, _ := strings.Cut(line[2:], "#")
		if example := strings.HasPrefix(comment, " e.g."); example && changes == nil {
			t.Errorf("line %d: an example that shows the default: %s", i+1, line)
		} else if !example && changes != nil {
			t.Errorf("line %d: not the default: %s", i+1, changes)
		}
	}
	full := strings.Split(d.with(hidden...), "\n")
	for i, line := range full {
		m := stated.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		missing, restored := slices.Clone(full), slices.Clone(full)
		missing[i] = ""
		restored[i] = assigned.ReplaceAllString(line, "${1}"+m[1])
		changes, _ := Diff(parse(t, strings.Join(missing, "\n")), parse(t, strings.Join(restored, "\n")))
		if changes != nil {
			t.Errorf("line %d: not the default: %s", i+1, changes)
		}
	}
}

func TestDemoConfigIsTidy(t *testing.T) {
	for i, line := range strings.Split(string(gateway.DemoConfig), "\n") {
		if strings.TrimRight(line, " \t") != line || strings.Contains(line, "\t") {
			t.Errorf("line %d has tabs or space at its end", i+1)
		}
	}
	if bytes.Count(gateway.DemoConfig, []byte("\n")) > 360 {
		t.Error("config.toml is too long to be read")
	}
}

// optionKeys are the keys of all options, with NAME for names.
func optionKeys() (keys []string) {
	var walk func(prefix string, fields []field)
	walk = func(prefix string, fields []field) {
		for _, f := range fields {
			key := join(prefix, f.key)
			if isSection(f.typ) && prefix == "" {
				continue
			}
			keys = append(keys, key)
			if t := elem(f.typ); isTable(t) {
				walk(key, fieldsOf(t))
			}
		}
	}
	walk("", fieldsOf(configType))
	for _, s := range sections() {
		prefix := s.key
		if strings.HasSuffix(s.header, ".NAME]") {
			prefix += ".NAME"
		}
		walk(prefix, fieldsOf(s.typ))
	}
	return keys
}
