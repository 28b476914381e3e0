package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// variable is a string value that consists of one variable alone, such as
// "${PORT}", or comes from the environment. Options that are no strings take
// their value from its text.
type variable string

// broken is a value that was reported already; whoever meets it is silent.
type broken struct{}

// maxSecret bounds files that ${file:…} reads.
const maxSecret = 64 << 10

// expander replaces variables in the strings of decoded TOML: ${NAME},
// ${NAME:-default} and ${file:/path}; $$ is a dollar sign.
type expander struct {
	lookup  func(string) (string, bool)
	report  func(key, problem string)
	secrets map[string]bool // keys whose values came from files
	texts   []string        // these values
}

// value is a copy of v with its strings expanded, arrays of any kind as []any.
func (e *expander) value(v any, key string) any {
	switch v := v.(type) {
	case string:
		return e.text(v, key)
	case map[string]any:
		table := make(map[string]any, len(v))
		for _, name := range names(v) {
			table[name] = e.value(v[name], join(key, name))
		}
		return table
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = e.value(v[i], element(key, i))
		}
		return list
	case []map[string]any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = e.value(v[i], element(key, i))
		}
		return list
	}
	return v
}

func (e *expander) text(s, key string) any {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	whole := false
	for rest := s; rest != ""; {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			break
		}
		if after, found = strings.CutPrefix(after, "$"); found {
			b.WriteByte('$')
			rest = after
			continue
		}
		inside, found := strings.CutPrefix(after, "{")
		inside, after, closed := strings.Cut(inside, "}")
		if !found || !closed {
			e.report(key, fmt.Sprintf("unexpected $ in %q; want ${VARIABLE}, or $$ for a dollar sign", s))
			return broken{}
		}
		text, secret, err := e.variable(inside)
		if err != nil {
			e.report(key, err.Error())
			return broken{}
		}
		if secret {
			e.secrets[key] = true
			e.texts = append(e.texts, text)
		}
		b.WriteString(text)
		whole = rest == s && before == "" && after == ""
		rest = after
	}
	if whole {
		return variable(b.String())
	}
	return b.String()
}

// variable is the text for what stands between ${ and }.
func (e *expander) variable(inside string) (text string, secret bool, err error) {
	if path, ok := strings.CutPrefix(inside, "file:"); ok {
		text, err = readSecret(path)
		return text, true, err
	}
	name, fallback, hasFallback := strings.Cut(inside, ":-")
	if !isVariable(name) {
		return "", false, fmt.Errorf("unexpected variable ${%s}; want ${NAME}, ${NAME:-default} or ${file:/path}", inside)
	}
	text, ok := e.lookup(name)
	switch {
	case hasFallback && text == "":
		return fallback, false, nil
	case !ok:
		return "", false, fmt.Errorf("environment variable %s is not set; set it or write ${%s:-default}", name, name)
	}
	return text, false, nil
}

func isVariable(name string) bool {
	for i := range len(name) {
		if c := name[i]; !bareByte(c) || c == '-' || i == 0 && c >= '0' && c <= '9' {
			return false
		}
	}
	return name != ""
}

// readSecret reads a regular file without its last line end.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read ${file:%s}: %w", path, plain(err))
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("read ${file:%s}: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read ${file:%s}: %w", path, plain(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read ${file:%s}: %w", path, plain(err))
	}
	if len(b) > maxSecret {
		return "", fmt.Errorf("read ${file:%s}: larger than 64KiB", path)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}

// plain is an error of the file system without operation and path, which the
// message around it names.
func plain(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
