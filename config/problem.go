package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is a mistake in a configuration, or a warning about it.
type Problem struct {
	Source string // file, or environment variable that the value came from
	Line   int    // in the file, from 1; 0 for an environment variable
	Key    string // path of the option; "" for the file as a whole
	Text   string // what was found and what is wanted
}

// String is the problem as one line: config.toml:14: upstream.users.balance: unknown value …
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Source)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems is the error of a configuration that cannot be used: every mistake
// that was found, by line.
type Problems []Problem

// Error is one line per problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// sort orders problems by line; those of variables come first.
func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
}
