package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gateway/internal/unit"
)

// masked stands for secrets.
const masked = `"***"`

// renderer writes options as TOML values.
type renderer struct {
	secrets map[string]bool // keys of values that are masked; nil shows all
}

// value is an option as the file would spell it, "" if the file would leave it
// out.
func (r renderer) value(v reflect.Value, key string, f field) string {
	if r.secrets != nil && (f.secret || r.secrets[key]) && !v.IsZero() {
		return masked
	}
	t := v.Type()
	switch {
	case isChoice(t):
		c := v.Interface().(interface {
			parts() (string, reflect.Value)
		})
		name, inner := c.parts()
		switch {
		case name != "":
			return quote(name)
		case !inner.IsValid():
			return "false"
		}
		return r.table(inner, key)
	case isText(t):
		text := textOf(v)
		if text == "" && f.fallback == "" {
			return ""
		}
		return quote(text)
	case t.Kind() == reflect.Pointer:
		if v.IsNil() {
			return ""
		}
		return r.table(v.Elem(), key)
	case isUnmarshaler(t):
		if short := r.short(v, key); short != "" {
			return short
		}
		return r.table(v, key)
	case t.Kind() == reflect.Struct:
		return r.table(v, key)
	case t.Kind() == reflect.Slice:
		if v.Len() == 0 && f.fallback == "" {
			return ""
		}
		if v.Len() == 1 && isChoice(t.Elem()) {
			return r.elements(v, key)[0]
		}
		return "[" + strings.Join(r.elements(v, key), ", ") + "]"
	case t.Kind() == reflect.Map:
		if v.Len() == 0 {
			return ""
		}
		var parts []string
		for _, name := range sortedKeys(v) {
			text := r.value(v.MapIndex(reflect.ValueOf(name)), join(key, name), field{fallback: " "})
			parts = append(parts, join("", name)+" = "+text)
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	case t.Kind() == reflect.Float64:
		text := strconv.FormatFloat(v.Float(), 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
		return text
	}
	return fmt.Sprint(v.Interface()) // a number or a switch
}

func (r renderer) elements(v reflect.Value, key string) []string {
	list := make([]string, v.Len())
	for i := range list {
		place := element(key, i)
		if len(list) == 1 && isChoice(v.Type().Elem()) && !r.hidesBelow(place) {
			place = key // written without brackets, unless there is nothing to hide anyway
		}
		list[i] = r.value(v.Index(i), place, field{fallback: " "})
	}
	return list
}

// hidesBelow reports whether there are secrets at the key or below it.
func (r renderer) hidesBelow(key string) bool {
	for secret := range r.secrets {
		if strings.HasPrefix(secret, key) {
			return true
		}
	}
	return false
}

// table is a struct as an inline table.
func (r renderer) table(v reflect.Value, key string) string {
	var parts []string
	for _, f := range fieldsOf(v.Type()) {
		if text := r.value(v.FieldByIndex(f.index), join(key, f.key), f); text != "" {
			parts = append(parts, f.key+" = "+text)
		}
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}

// short is the form of an option of several forms that is not a table, if that
// says all: false, or the string that its first field holds.
func (r renderer) short(v reflect.Value, key string) string {
	is := func(form any) bool {
		p := reflect.New(v.Type())
		return p.Interface().(unmarshaler).UnmarshalTOML(form) == nil && reflect.DeepEqual(p.Elem().Interface(), v.Interface())
	}
	if is(false) {
		return "false"
	}
	if !isTable(v.Type()) {
		return ""
	}
	f := fieldsOf(v.Type())[0]
	first := v.FieldByIndex(f.index)
	if first.Kind() == reflect.String && is(first.String()) {
		return r.value(first, join(key, f.key), f)
	}
	return ""
}

// textOf is the text of an option that is written as a string.
func textOf(v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return unit.FormatDuration(d)
	}
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return s.String()
	}
	return v.String()
}

// quote is a string in TOML, $ doubled so that it reads as itself.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '$':
			b.WriteString("$$")
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
