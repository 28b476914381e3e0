package config

import (
	"fmt"
	"reflect"
)

// Choice is an option that takes the name of a table, the table itself in
// line, or true for that table's defaults; false and a missing key are off.
// Types may be a lister or a namer.
type Choice[T any] struct {
	Name  string // of the table; "" for one in line
	Value *T     // nil when off
}

// lister is a table with an option that a bare list stands for.
type lister interface{ ListKey() string }

// namer is a table whose defaults mean nothing: true stands for the table of
// that name.
type namer interface{ DefaultName() string }

// chooser is any Choice.
type chooser interface {
	choose(b *binder, raw any, key string)
	inline() reflect.Value
	table() reflect.Type
}

// choose reads the option; the table of a name is found later, by resolve.
func (c *Choice[T]) choose(b *binder, raw any, key string) {
	switch raw := raw.(type) {
	case bool:
		if n, ok := any(new(T)).(namer); ok && raw {
			c.Name = n.DefaultName()
		} else if raw {
			c.Value = new(T)
			fill(reflect.ValueOf(c.Value).Elem())
		}
	case map[string]any:
		c.Value = new(T)
		b.table(reflect.ValueOf(c.Value).Elem(), raw, key)
	default:
		f, lists := listField(c.table())
		if list, ok := raw.([]any); ok && lists {
			c.Value = new(T)
			b.table(reflect.ValueOf(c.Value).Elem(), map[string]any{f.key: list}, key)
			return
		}
		name, ok := stringOf(raw)
		if !ok || name == "" {
			want := "a name, a table, true or false"
			if lists {
				want = "a name, a table, a list, true or false"
			}
			b.report(key, fmt.Sprintf("unexpected %s; want %s", found(raw), want))
			return
		}
		c.Name = name
	}
}

// listField is the option of a table that a bare list stands for, if the table
// has one.
func listField(table reflect.Type) (f field, ok bool) {
	l, ok := reflect.New(table).Interface().(lister)
	if !ok {
		return field{}, false
	}
	for _, f := range fieldsOf(table) {
		if f.key == l.ListKey() {
			return f, true
		}
	}
	panic("BUG: " + table.String() + " has no option " + l.ListKey())
}

// off reports whether the option is false or missing.
func (c *Choice[T]) off() bool { return c.Name == "" && c.Value == nil }

// resolve finds the table that the option names.
func (c *Choice[T]) resolve(kind string, tables map[string]T, report func(problem string)) {
	if c.Name == "" {
		return
	}
	table, ok := tables[c.Name]
	if !ok {
		report(fmt.Sprintf("unknown %s %q%s", kind, c.Name, suggestion(c.Name, names(tables))))
		return
	}
	c.Value = &table
}

// inline is the table in line, invalid when there is none.
func (c *Choice[T]) inline() reflect.Value {
	if c.Name != "" || c.Value == nil {
		return reflect.Value{}
	}
	return reflect.ValueOf(c.Value).Elem()
}

func (c *Choice[T]) table() reflect.Type { return reflect.TypeFor[T]() }

// parts are the name, or the table in line, invalid when the option is off.
func (c Choice[T]) parts() (name string, table reflect.Value) {
	if c.Value == nil {
		return c.Name, reflect.Value{}
	}
	return c.Name, reflect.ValueOf(c.Value).Elem()
}
