package config

import (
	"bytes"
	"fmt"
	"reflect"
)

// Effective is the configuration in effect as TOML: defaults filled in,
// variables expanded, what the environment overrides marked, secrets masked.
// Read again, it gives the same configuration, but for the secrets.
func (c *Config) Effective() []byte {
	var b bytes.Buffer
	r := renderer{secrets: c.source.secrets}
	v := reflect.ValueOf(c).Elem()
	fmt.Fprintf(&b, "# %s as in effect: defaults filled in, secrets masked\n\n", c.source.name)
	var tables []field
	for _, f := range fieldsOf(v.Type()) {
		if isSection(f.typ) {
			tables = append(tables, f)
			continue
		}
		c.line(&b, r, v.FieldByIndex(f.index), f.key, f)
	}
	for _, f := range tables {
		target := v.FieldByIndex(f.index)
		switch target.Kind() {
		case reflect.Map:
			for _, name := range sortedKeys(target) {
				key := join(f.key, name)
				c.table(&b, r, "["+key+"]", key, target.MapIndex(reflect.ValueOf(name)))
			}
		case reflect.Slice:
			for i := range target.Len() {
				c.table(&b, r, "[["+f.key+"]]", element(f.key, i), target.Index(i))
			}
		default:
			c.table(&b, r, "["+f.key+"]", f.key, target)
		}
	}
	return b.Bytes()
}

func (c *Config) table(b *bytes.Buffer, r renderer, header, key string, v reflect.Value) {
	fmt.Fprintf(b, "\n%s\n", header)
	for _, f := range fieldsOf(v.Type()) {
		c.line(b, r, v.FieldByIndex(f.index), join(key, f.key), f)
	}
}

func (c *Config) line(b *bytes.Buffer, r renderer, v reflect.Value, key string, f field) {
	text := r.value(v, key, f)
	if text == "" {
		return
	}
	fmt.Fprintf(b, "%s = %s", f.key, text)
	if o, ok := c.source.overridden[key]; ok {
		fmt.Fprintf(b, "  # from %s", o.variable)
	}
	b.WriteByte('\n')
}
