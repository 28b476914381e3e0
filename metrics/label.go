package metrics

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// checkFamily panics unless Prometheus accepts the name and `promtool check
// metrics` would find nothing to say.
func checkFamily(name, help string, k kind) {
	bug := func(why string) { panic(fmt.Sprintf("BUG: metric %q %s", name, why)) }
	switch {
	case !validName(name):
		bug("has a name that Prometheus refuses")
	case strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_"):
		bug("takes a name of the runtime's")
	case strings.TrimSpace(help) == "":
		bug("has no help text")
	case (k == counter) != strings.HasSuffix(name, "_total"):
		bug("must end in _total exactly if it is a counter")
	case k == histogram && !strings.HasSuffix(name, "_seconds"):
		bug("must end in _seconds, since it is a histogram of durations")
	}
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if strings.HasSuffix(name, suffix) {
			bug("ends like a part of a histogram")
		}
	}
}

// checkLabels panics unless pairs are names and values, and the names are the
// ones that the family has, in their order. It returns the names.
func checkLabels(name string, names, pairs []string) []string {
	if len(pairs)%2 != 0 {
		panic(fmt.Sprintf("BUG: labels %q of metric %s are not pairs", pairs, name))
	}
	if names == nil {
		names = make([]string, 0, len(pairs)/2)
		for i := 0; i < len(pairs); i += 2 {
			if l := pairs[i]; !validName(l) || strings.HasPrefix(l, "__") || l == "le" || l == "quantile" || slices.Contains(names, l) {
				panic(fmt.Sprintf("BUG: label %q of metric %s is not allowed", l, name))
			}
			names = append(names, pairs[i])
		}
	}
	same := len(names) == len(pairs)/2
	for i := 0; same && i < len(names); i++ {
		same = names[i] == pairs[2*i]
	}
	if !same {
		panic(fmt.Sprintf("BUG: metric %s has labels %q, not %q", name, names, pairs))
	}
	return names
}

// validName reports whether s is a name of a metric or a label: letters,
// digits and underscores. Prometheus would take colons in metric names, but
// they are for recording rules.
func validName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// appendLabels appends names and values in turn as a="b",c="d".
func appendLabels(b []byte, pairs []string) []byte {
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, pairs[i]...)
		b = append(b, `="`...)
		b = appendEscaped(b, pairs[i+1], true)
		b = append(b, '"')
	}
	return b
}

// appendEscaped appends s as a label value or, without quotes, as a help text.
// Bytes that are not UTF-8 become U+FFFD: Prometheus would refuse the scrape.
func appendEscaped(b []byte, s string, quotes bool) []byte {
	for _, c := range s {
		switch {
		case c == '\\':
			b = append(b, `\\`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '"' && quotes:
			b = append(b, `\"`...)
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return b
}
