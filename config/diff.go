package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Diff says in words what a new configuration changes, a line per option:
//
//	upstream.users.servers: added "127.0.0.1:9004"
//	route[users].max_body: "10MiB" → "1GiB"
//	upstream.old: removed
//
// Routes are known by their names. Warnings are changes that have no effect
// because the environment overrides the option.
func Diff(old, new *Config) (changes, warnings []string) {
	before, after := old.leaves(), new.leaves()
	for _, l := range before.list {
		if _, ok := after.byKey[l.key]; !ok && !after.lacks(l.table) {
			changes = append(changes, l.key+": removed "+l.shown)
		}
	}
	for _, table := range before.tables {
		if after.lacks(table) {
			changes = append(changes, table+": removed")
		}
	}
	for _, table := range after.tables {
		if before.lacks(table) {
			changes = append(changes, table+": added")
		}
	}
	for _, l := range after.list {
		if before.lacks(l.table) {
			continue
		}
		earlier, ok := before.byKey[l.key]
		switch {
		case !ok:
			changes = append(changes, l.key+": added "+l.shown)
		case earlier.text != l.text:
			changes = append(changes, l.key+": "+change(earlier, l))
		}
	}
	if !slices.Equal(before.common(after), after.common(before)) {
		changes = append(changes, "route: order changed to "+strings.Join(routeNames(new), ", "))
	}
	for _, o := range overrides {
		was, is := old.source.overridden[o.key], new.source.overridden[o.key]
		if is.variable != "" && was.variable != "" && !reflect.DeepEqual(was.file, is.file) {
			warnings = append(warnings, fmt.Sprintf("%s: changed in the file, but %s in the environment overrides it", o.key, o.variable))
		}
	}
	return changes, warnings
}

// leaf is an option with its value.
type leaf struct {
	key      string
	table    string   // that it belongs to, if tables of that kind come and go
	text     string   // the value
	shown    string   // the value, secrets masked
	elements []string // of a list, as shown
}

// leaves are all options of a configuration.
type leaves struct {
	list   []leaf
	byKey  map[string]leaf
	tables []string // in order
	has    map[string]bool
}

func (l *leaves) lacks(table string) bool { return table != "" && !l.has[table] }

func (c *Config) leaves() *leaves {
	l := &leaves{byKey: map[string]leaf{}, has: map[string]bool{}}
	v := reflect.ValueOf(c).Elem()
	for _, f := range fieldsOf(v.Type()) {
		target := v.FieldByIndex(f.index)
		switch {
		case !isSection(f.typ) || target.Kind() == reflect.Struct:
			l.add(c, target, f.key, f.key, "", f)
		case target.Kind() == reflect.Map:
			for _, name := range sortedKeys(target) {
				key := join(f.key, name)
				l.tables = append(l.tables, key)
				l.add(c, target.MapIndex(reflect.ValueOf(name)), key, key, key, field{})
			}
		default:
			for i := range target.Len() {
				key := fmt.Sprintf("%s[%s]", f.key, c.Routes[i].Name)
				l.tables = append(l.tables, key)
				l.add(c, target.Index(i), key, element(f.key, i), key, field{})
			}
		}
	}
	for _, table := range l.tables {
		l.has[table] = true
	}
	return l
}

// add adds the options of a table, or one option. place is its key in the
// file, where secrets are known by.
func (l *leaves) add(c *Config, v reflect.Value, key, place, table string, f field) {
	if isTable(v.Type()) && (!isUnmarshaler(v.Type()) || f.key == "access_log" || f.key == "admin") {
		for _, inner := range fieldsOf(v.Type()) {
			l.add(c, v.FieldByIndex(inner.index), join(key, inner.key), join(place, inner.key), table, inner)
		}
		return
	}
	shown := renderer{secrets: c.source.secrets}
	one := leaf{key: key, table: table, text: renderer{}.value(v, place, f), shown: shown.value(v, place, f)}
	if v.Kind() == reflect.Slice && shown.value(v, place, f) != masked {
		one.elements = shown.elements(v, place)
	}
	if one.text != "" {
		l.list = append(l.list, one)
		l.byKey[key] = one
	}
}

// change says how a value changed.
func change(old, new leaf) string {
	if old.shown == new.shown {
		return "changed" // a secret
	}
	if old.elements == nil || new.elements == nil {
		return old.shown + " → " + new.shown
	}
	var words []string
	for _, e := range new.elements {
		if !slices.Contains(old.elements, e) {
			words = append(words, "added "+e)
		}
	}
	for _, e := range old.elements {
		if !slices.Contains(new.elements, e) {
			words = append(words, "removed "+e)
		}
	}
	if words == nil {
		return "order changed"
	}
	return strings.Join(words, ", ")
}

// common are the tables that the other has too.
func (l *leaves) common(other *leaves) []string {
	return slices.DeleteFunc(slices.Clone(l.tables), other.lacks)
}

func routeNames(c *Config) []string {
	list := make([]string, len(c.Routes))
	for i := range c.Routes {
		list[i] = c.Routes[i].Name
	}
	return list
}

// sortedKeys are the keys of a map by name.
func sortedKeys(v reflect.Value) []string {
	list := make([]string, 0, v.Len())
	for _, name := range v.MapKeys() {
		list = append(list, name.String())
	}
	slices.Sort(list)
	return list
}
