package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFile bounds the file; thousands of routes fit in.
const maxFile = 4 << 20

// Load reads a file, with variables from the process's environment. The error,
// if any, is Problems.
func Load(path string) (*Config, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, Problems{{Source: path, Text: "read file: " + plain(err).Error()}}
	}
	return Parse(path, text, os.LookupEnv)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = errors.New("larger than 4 MiB")
	}
	return text, err
}

// Parse reads a configuration; name is that of its file, for messages. The
// error, if any, is Problems. lookup finds environment variables; nil finds
// none.
func Parse(name string, text []byte, lookup func(string) (string, bool)) (*Config, error) {
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	var tree map[string]any
	if _, err := toml.Decode(string(text), &tree); err != nil {
		return nil, Problems{syntaxProblem(name, err)}
	}
	if tree == nil {
		tree = map[string]any{}
	}
	r := reporter{name: name, lines: index(string(text))}
	r.overridden = applyOverrides(tree, lookup)
	c := &Config{source: source{name: name, lines: r.lines, overridden: r.overridden, secrets: map[string]bool{}}}
	expand := expander{lookup: lookup, report: r.problem, secrets: c.source.secrets}
	expanded := expand.value(tree, "")
	r.secrets = expand.texts
	b := binder{report: r.problem, failed: r.failed}
	b.table(reflect.ValueOf(c).Elem(), expanded, "")
	b.check(reflect.ValueOf(c).Elem(), "")
	c.check(&r)
	if len(r.problems) > 0 {
		r.problems.sort()
		return nil, r.problems
	}
	c.finish()
	c.warn(&r)
	r.warnings.sort()
	c.source.warnings = r.warnings
	return c, nil
}

// Warnings are what is allowed but probably not meant, by line.
func (c *Config) Warnings() Problems { return c.source.warnings }

// Line is the line of the file that a key path, or the nearest table around it,
// is on; 0 when the file does not mention it.
func (c *Config) Line(key string) int {
	for key != "" {
		if line, ok := c.source.lines[key]; ok {
			return line
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return 0
}

// File is the name of the file that the configuration was read from.
func (c *Config) File() string { return c.source.name }

// source is what a Config remembers about where it came from.
type source struct {
	name       string
	lines      lines
	overridden map[string]overridden
	secrets    map[string]bool // keys with values from ${file:…}
	warnings   Problems
}

// syntaxProblem is an error of the TOML package.
func syntaxProblem(name string, err error) Problem {
	var p toml.ParseError
	if !errors.As(err, &p) {
		return Problem{Source: name, Line: 1, Text: err.Error()}
	}
	text := strings.TrimSuffix(p.Message, ".")
	if text == "" {
		text = err.Error()
	}
	return Problem{Source: name, Line: max(1, p.Position.Line), Text: "not TOML: " + text}
}

// maxProblems bounds what one file can be told.
const maxProblems = 200

// minSecret is the length of secrets that are worth hiding: without a shorter
// one messages would be riddled with asterisks.
const minSecret = 4

// reporter collects problems and finds their lines.
type reporter struct {
	name       string
	lines      lines
	overridden map[string]overridden
	secrets    []string // texts that no message may show
	problems   Problems
	warnings   Problems
}

// at is a problem with its place, secrets masked.
func (r *reporter) at(key, text string) Problem {
	for _, s := range r.secrets {
		if len(s) < minSecret {
			continue
		}
		quoted := strconv.Quote(s)
		text = strings.ReplaceAll(text, quoted[1:len(quoted)-1], "***")
		text = strings.ReplaceAll(text, s, "***")
	}
	if o, ok := r.overridden[key]; ok {
		return Problem{Source: o.variable, Key: key, Text: text}
	}
	for inner, o := range r.overridden {
		if rest, ok := strings.CutPrefix(inner, key+"."); ok { // the table may be wrong because of it
			text += fmt.Sprintf(" (%s is from %s)", rest, o.variable)
		}
	}
	return Problem{Source: r.name, Line: r.lines.of(key), Key: key, Text: text}
}

func (r *reporter) problem(key, text string) {
	p := r.at(key, text)
	switch {
	case len(r.problems) > maxProblems:
	case len(r.problems) == maxProblems:
		r.problems = append(r.problems, Problem{Source: r.name, Line: p.Line, Text: fmt.Sprintf("more than %d problems; the rest is not shown", maxProblems)})
	default:
		for _, q := range r.problems {
			if p == q {
				return
			}
		}
		r.problems = append(r.problems, p)
	}
}

func (r *reporter) warning(key, text string) {
	if len(r.warnings) < maxProblems {
		r.warnings = append(r.warnings, r.at(key, text))
	}
}

// failed reports whether there is a problem at the key or below it.
func (r *reporter) failed(key string) bool {
	for _, p := range r.problems {
		if rest, ok := strings.CutPrefix(p.Key, key); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}
