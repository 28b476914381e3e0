package config

import "strings"

// override is an environment variable that sets an option, whatever the file
// says. An empty variable counts as not set.
type override struct {
	variable string
	key      string                   // dotted
	effect   string                   // for the reference
	spelled  func(text string) string // as the file would; nil for as it is
}

// overrides are all of them.
var overrides = []override{
	{"MAX_CONNECTIONS", "max_connections", "client connections that are open at the same time", nil},
	{"CACHE_TTL", "cache.ttl", "freshness of responses, on routes that cache and give none, when their origin gives none: seconds, or a duration such as `2m`", inSeconds},
	{"WORKER_POOL_SIZE", "workers", "background workers", nil},
	{"RATE_LIMIT", "limit.default.rate", "requests a second that each client may send, such as `100`, or another rate, such as `600/m`; " +
		"without `[limit.default]` in the file there is one then, and it applies to all routes that have no `limit`", perSecond},
}

// inSeconds is the duration that a bare number stands for.
func inSeconds(text string) string {
	if strings.Trim(text, "0123456789") == "" {
		return text + "s"
	}
	return text
}

// perSecond is the rate that a bare number stands for.
func perSecond(text string) string {
	if text != "" && strings.Trim(text, "0123456789") == "" {
		return text + "/s"
	}
	return text
}

// applyOverrides puts the environment's values into the decoded file and tells
// which keys it set, with what the file had said.
func applyOverrides(tree map[string]any, lookup func(string) (string, bool)) map[string]overridden {
	set := map[string]overridden{}
	for _, o := range overrides {
		text, _ := lookup(o.variable)
		if text == "" {
			continue
		}
		if o.spelled != nil {
			text = o.spelled(text)
		}
		path := strings.Split(o.key, ".")
		last := len(path) - 1
		if table := below(tree, path[:last]); table != nil {
			in, inFile := table[path[last]]
			set[o.key] = overridden{variable: o.variable, file: in, inFile: inFile}
			table[path[last]] = variable(text)
		}
	}
	return set
}

// below is the table of that path, made if there is none; nil if the file has
// something else there, which is reported later.
func below(tree map[string]any, path []string) map[string]any {
	for _, name := range path {
		if _, ok := tree[name]; !ok {
			tree[name] = map[string]any{}
		}
		table, ok := tree[name].(map[string]any)
		if !ok {
			return nil
		}
		tree = table
	}
	return tree
}

// overridden is an option whose value came from the environment.
type overridden struct {
	variable string
	file     any // what the file says
	inFile   bool
}
