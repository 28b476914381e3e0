package config

import (
	"strconv"
	"strings"
)

// lines are the lines of the file by key path. The TOML package tells
// positions of syntax errors only; everything else is found here, in a second
// pass over text that is known to be valid TOML.
type lines map[string]int

// of is the line of a key, or of the nearest table around it that the file
// mentions; 1 if there is none.
func (l lines) of(key string) int {
	for key != "" {
		if line, ok := l[key]; ok {
			return line
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return 1
}

// join appends a name to a key path, quoted when it is not bare.
func join(path, name string) string {
	if !bare(name) {
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// element appends an index to a key path.
func element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// bare reports whether s is a key that needs no quotes.
func bare(s string) bool {
	for i := range len(s) {
		if !bareByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func bareByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// maxDepth bounds the length of key paths; no option is nearly as deep.
const maxDepth = 16

// indexer walks TOML text. It relies on the text being valid, and ends on any
// other, too.
type indexer struct {
	text  string
	at    int
	line  int
	lines lines
	sizes map[string]int // elements so far of each array of tables
}

// index finds the line of every key, table and element.
func index(text string) lines {
	x := indexer{text: text, line: 1, lines: lines{}, sizes: map[string]int{}}
	table := ""
	for x.blank(); x.at < len(x.text); x.blank() {
		if x.peek() == '[' {
			table = x.header()
		} else {
			x.pair(table, 0)
		}
	}
	return x.lines
}

func (x *indexer) peek() byte {
	if x.at < len(x.text) {
		return x.text[x.at]
	}
	return 0
}

// take skips c if it is next.
func (x *indexer) take(c byte) bool {
	if x.at < len(x.text) && x.text[x.at] == c {
		x.next()
		return true
	}
	return false
}

func (x *indexer) next() {
	if x.peek() == '\n' {
		x.line++
	}
	x.at = min(x.at+1, len(x.text))
}

// blank skips white space, line ends and comments.
func (x *indexer) blank() {
	for x.at < len(x.text) {
		switch x.peek() {
		case ' ', '\t', '\r', '\n':
			x.next()
		case '#':
			for x.at < len(x.text) && x.peek() != '\n' {
				x.at++
			}
		default:
			return
		}
	}
}

// mark notes the line of a path that is mentioned for the first time.
func (x *indexer) mark(path string, line int) {
	if _, ok := x.lines[path]; !ok {
		x.lines[path] = line
	}
}

// header reads [table] or [[table]] and gives its path.
func (x *indexer) header() (path string) {
	line := x.line
	x.take('[')
	array := x.take('[')
	names := x.names()
	for i, name := range names {
		path = join(path, name)
		if array && i == len(names)-1 {
			x.mark(path, line)
			n := x.sizes[path]
			x.sizes[path] = n + 1
			path = element(path, n)
		} else if n := x.sizes[path]; n > 0 {
			path = element(path, n-1)
		}
		x.mark(path, line)
	}
	x.take(']')
	x.take(']')
	return path
}

// pair reads key = value below a table.
func (x *indexer) pair(path string, depth int) {
	line, start := x.line, x.at
	for _, name := range x.names() {
		path = join(path, name)
		x.mark(path, line)
		depth++
	}
	x.take('=')
	x.blank()
	x.value(path, depth)
	if x.at == start {
		x.next() // not TOML
	}
}

// names reads a dotted key.
func (x *indexer) names() (names []string) {
	for {
		x.blank()
		start := x.at
		switch x.peek() {
		case '"', '\'':
			x.str()
			raw := x.text[start:x.at]
			name, err := strconv.Unquote(raw)
			if err != nil {
				name = strings.Trim(raw, raw[:1])
			}
			names = append(names, name)
		default:
			for x.at < len(x.text) && bareByte(x.peek()) {
				x.at++
			}
			names = append(names, x.text[start:x.at])
		}
		if len(names) > maxDepth {
			names = names[:maxDepth]
		}
		for x.peek() == ' ' || x.peek() == '\t' {
			x.at++
		}
		if !x.take('.') {
			return names
		}
	}
}

// value skips a value and marks what is inside.
func (x *indexer) value(path string, depth int) {
	deeper := depth < maxDepth
	switch x.peek() {
	case '"', '\'':
		x.str()
	case '[':
		x.take('[')
		for i := 0; ; i++ {
			if x.blank(); x.at >= len(x.text) || x.take(']') {
				return
			}
			inner := path
			if deeper {
				inner = element(path, i)
				x.mark(inner, x.line)
			}
			start := x.at
			x.value(inner, depth+1)
			x.blank()
			if !x.take(',') && x.at == start {
				x.next() // not TOML
			}
		}
	case '{':
		x.take('{')
		for {
			if x.blank(); x.at >= len(x.text) || x.take('}') {
				return
			}
			start := x.at
			if deeper {
				x.pair(path, depth+1)
			} else {
				x.names()
				x.take('=')
				x.blank()
				x.value(path, depth+1)
			}
			if x.at == start {
				x.next() // not TOML
			}
			x.blank()
			x.take(',')
		}
	default:
		for x.at < len(x.text) && strings.IndexByte(",]}#\r\n", x.peek()) < 0 {
			x.at++
		}
	}
}

// str skips a string of any of the four kinds.
func (x *indexer) str() {
	quote := x.text[x.at : x.at+1]
	if long := strings.Repeat(quote, 3); strings.HasPrefix(x.text[x.at:], long) {
		x.at += len(long)
		x.until(long, quote == `"`)
		for x.take(quote[0]) { // up to two quotes may precede the delimiter
		}
		return
	}
	x.at++
	x.until(quote, quote == `"`)
}

// until skips text up to and including the end mark.
func (x *indexer) until(end string, escapes bool) {
	for x.at < len(x.text) {
		if strings.HasPrefix(x.text[x.at:], end) {
			x.at += len(end)
			return
		}
		if x.peek() == '\\' && escapes {
			x.next()
		}
		x.next()
	}
}
