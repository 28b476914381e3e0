package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"time"

	"gateway/internal/unit"
)

// binder sets options to the values of a decoded file. It reports every value
// that does not fit and goes on with the next.
type binder struct {
	report func(key, problem string)
	failed func(key string) bool // something at or below the key was reported
}

// value sets v, an option, to what the file says.
func (b *binder) value(v reflect.Value, raw any, key string, f field) {
	if _, ok := raw.(broken); ok {
		return
	}
	switch p := v.Addr().Interface().(type) {
	case chooser:
		p.choose(b, raw, key)
		return
	case unmarshaler:
		b.unmarshal(p, v, raw, key)
		return
	}
	t := v.Type()
	switch {
	case t.Kind() == reflect.Pointer:
		target := reflect.New(t.Elem())
		b.table(target.Elem(), raw, key)
		if _, ok := raw.(map[string]any); ok {
			v.Set(target)
		}
	case isText(t):
		b.text(v, raw, key, f)
	case t.Kind() == reflect.Struct:
		b.table(v, raw, key)
	case t.Kind() == reflect.Slice:
		b.list(v, raw, key, f)
	case t.Kind() == reflect.Map:
		b.named(v, raw, key, f)
	default:
		b.scalar(v, raw, key, f)
	}
}

// table sets the options of a struct: defaults first, then what the file says.
func (b *binder) table(v reflect.Value, raw any, key string) {
	fill(v)
	table, ok := raw.(map[string]any)
	if !ok {
		b.report(key, fmt.Sprintf("unexpected %s; want a table", found(raw)))
		return
	}
	fields := fieldsOf(v.Type())
	byKey := make(map[string]field, len(fields))
	for _, f := range fields {
		byKey[f.key] = f
	}
	for _, name := range names(table) {
		if f, ok := byKey[name]; ok {
			b.value(v.FieldByIndex(f.index), table[name], join(key, name), f)
		} else {
			b.report(join(key, name), "unknown key"+misplaced(name, names(byKey)))
		}
	}
}

// misplaced is what may be meant by an unknown key of a table: one of another,
// because keys after a [table] belong to it, or a similar one of the same.
func misplaced(name string, known []string) string {
	if place, ok := places()[name]; ok {
		return "; it belongs to " + place
	}
	return suggestion(name, known)
}

// places are where keys belong, by key; of several places the first.
var places = sync.OnceValue(func() map[string]string {
	all := map[string]string{}
	for _, f := range fieldsOf(configType) {
		all[f.key] = "the top of the file, above the first [table]"
	}
	for _, s := range sections() {
		for _, f := range fieldsOf(s.typ) {
			if _, ok := all[f.key]; !ok {
				all[f.key] = s.header
			}
		}
	}
	return all
})

// unmarshal sets an option of several forms. A table is given to the option's
// own method for what it means as a whole, and is then read here key by key.
func (b *binder) unmarshal(p unmarshaler, v reflect.Value, raw any, key string) {
	if err := p.UnmarshalTOML(plainValue(raw)); err != nil {
		if !b.failed(key) { // a variable inside
			b.report(key, err.Error())
		}
		return
	}
	if _, ok := raw.(map[string]any); ok && isTable(v.Type()) {
		b.table(v, raw, key)
	}
}

// plainValue is a value as the TOML package gives it.
func plainValue(raw any) any {
	switch raw := raw.(type) {
	case variable:
		return string(raw)
	case []any:
		list := make([]any, len(raw))
		for i := range raw {
			list[i] = plainValue(raw[i])
		}
		return list
	case map[string]any:
		table := make(map[string]any, len(raw))
		for name, v := range raw {
			table[name] = plainValue(v)
		}
		return table
	}
	return raw
}

// text sets an option that is written as a string.
func (b *binder) text(v reflect.Value, raw any, key string, f field) {
	text, ok := stringOf(raw)
	if !ok {
		b.report(key, fmt.Sprintf("unexpected %s; want %s", found(raw), wantText(v.Type(), raw, f)))
		return
	}
	if f.enum != nil && !contains(f.enum, text) {
		b.report(key, fmt.Sprintf("unknown value %q; want %s", text, either(f.enum)))
		return
	}
	if err := setText(v, text); err != nil {
		b.report(key, err.Error())
		return
	}
	b.bounds(v, text, key, f)
}

// wantText describes a string that the option takes. A bare number gets the
// unit that was probably meant.
func wantText(t reflect.Type, raw any, f field) string {
	n, isNumber := raw.(int64)
	_, isUnit := reflect.New(t).Interface().(encoding.TextUnmarshaler)
	switch {
	case f.enum != nil:
		return either(f.enum)
	case t == durationType && isNumber && n >= 0:
		return fmt.Sprintf(`a duration with its unit, such as "%ds"`, n)
	case t == durationType:
		return `a duration such as "2s"`
	case t == addressType && isNumber && n > 0:
		return fmt.Sprintf(`an address such as ":%d"`, n)
	case t == addressType:
		return `an address such as ":8080"`
	case t == reflect.TypeFor[OptionalAddress]():
		return `an address such as "127.0.0.1:9180", or "off"`
	case t == sizeType && isNumber && n >= 1024:
		return fmt.Sprintf("a size with its unit, such as %q", unit.Size(n))
	case t == sizeType && isNumber && n > 0:
		return fmt.Sprintf(`a size with its unit, such as "%dB" or "%dMiB"`, n, n)
	case t == sizeType:
		return `a size such as "64MiB", or "0"`
	case t == reflect.TypeFor[unit.Percent]():
		return `a percentage such as "20%"`
	case t == reflect.TypeFor[unit.Rate]():
		return `a rate such as "100/s"`
	case isUnit && f.fallback != "":
		return fmt.Sprintf("a string such as %q", f.fallback)
	case isNumber && !isUnit:
		return fmt.Sprintf(`a string such as "%d"`, n)
	}
	return "a string"
}

// scalar sets an option that is a number or a switch.
func (b *binder) scalar(v reflect.Value, raw any, key string, f field) {
	want := ""
	switch v.Kind() {
	case reflect.Bool:
		if x, ok := raw.(bool); ok {
			v.SetBool(x)
			return
		}
		want = "true or false"
	case reflect.Int, reflect.Int64:
		if n, ok := raw.(int64); ok && !v.OverflowInt(n) {
			v.SetInt(n)
			b.bounds(v, fmt.Sprint(n), key, f)
			return
		}
		want = "a whole number"
	case reflect.Float64:
		switch n := raw.(type) {
		case int64:
			v.SetFloat(float64(n))
			b.bounds(v, fmt.Sprint(n), key, f)
			return
		case float64:
			if !math.IsNaN(n) && !math.IsInf(n, 0) {
				v.SetFloat(n)
				b.bounds(v, fmt.Sprint(n), key, f)
				return
			}
		}
		want = "a number"
	default:
		panic("BUG: no way to read options of type " + v.Type().String())
	}
	if text, ok := raw.(variable); ok {
		if err := setText(v, string(text)); err != nil {
			b.report(key, err.Error())
		} else {
			b.bounds(v, string(text), key, f)
		}
		return
	}
	if text, ok := raw.(string); ok {
		want += " without quotes"
		b.report(key, fmt.Sprintf("unexpected string %q; want %s", text, want))
		return
	}
	b.report(key, fmt.Sprintf("unexpected %s; want %s", found(raw), want))
}

// bounds checks a value that was just set against its option's bounds.
func (b *binder) bounds(v reflect.Value, text, key string, f field) {
	if f.enum != nil && !contains(f.enum, text) {
		b.report(key, fmt.Sprintf("unknown value %s; want %s", text, either(f.enum)))
		return
	}
	below := f.min != "" && less(v, bound(v.Type(), f.min))
	above := f.max != "" && less(bound(v.Type(), f.max), v)
	if !below && !above {
		return
	}
	want := f.min + " to " + f.max
	if f.max == "" {
		want = "at least " + f.min
	} else if f.min == "" {
		want = "at most " + f.max
	}
	b.report(key, fmt.Sprintf("%s is out of range; want %s", text, want))
}

// bound is the value of a min or max tag.
func bound(t reflect.Type, text string) reflect.Value {
	v := reflect.New(t).Elem()
	if err := setText(v, text); err != nil {
		panic("BUG: bound of " + t.String() + ": " + err.Error())
	}
	return v
}

func less(a, b reflect.Value) bool {
	if a.CanFloat() {
		return a.Float() < b.Float()
	}
	return a.Int() < b.Int()
}

// list sets an option that is a list. One string stands for a list of one,
// where elements are written as strings, and so does anything that a Choice
// takes.
func (b *binder) list(v reflect.Value, raw any, key string, f field) {
	element1 := v.Type().Elem()
	list, ok := raw.([]any)
	if !ok {
		if _, isString := stringOf(raw); !isChoice(element1) && (!isString || isTable(element1) && !isUnmarshaler(element1)) {
			want := "a list"
			if _, ok := raw.(map[string]any); ok && isTable(element1) {
				want = fmt.Sprintf("a list of tables; write [[%s]] above each", key)
			} else if isText(element1) || isUnmarshaler(element1) {
				want = "a string or a list of strings"
			}
			b.report(key, fmt.Sprintf("unexpected %s; want %s", found(raw), want))
			return
		}
		out := reflect.MakeSlice(v.Type(), 1, 1)
		b.value(out.Index(0), raw, key, f)
		v.Set(out)
		return
	}
	out := reflect.MakeSlice(v.Type(), len(list), len(list))
	for i := range list {
		b.value(out.Index(i), list[i], element(key, i), f)
	}
	v.Set(out)
}

// maxName bounds the names of tables, which become labels of metrics.
const maxName = 64

// named sets an option that is a table of values by name.
func (b *binder) named(v reflect.Value, raw any, key string, f field) {
	table, ok := raw.(map[string]any)
	if !ok {
		b.report(key, fmt.Sprintf("unexpected %s; want a table", found(raw)))
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(table)))
	for _, name := range names(table) {
		inner := join(key, name)
		if isTable(v.Type().Elem()) {
			if problem := checkName(name); problem != "" {
				b.report(inner, problem)
			}
			if _, ok := table[name].(map[string]any); !ok {
				b.report(inner, fmt.Sprintf("unexpected %s; want a table [%s.NAME]", found(table[name]), key))
				continue
			}
		}
		e := reflect.New(v.Type().Elem()).Elem()
		b.value(e, table[name], inner, field{key: f.key, name: f.name})
		v.SetMapIndex(reflect.ValueOf(name), e)
	}
}

// checkName is the problem with a name that the configuration gives to
// something, "" if there is none.
func checkName(name string) string {
	if !bare(name) {
		return fmt.Sprintf("unexpected name %q; want letters, digits, _ and -", name)
	}
	if len(name) > maxName {
		return fmt.Sprintf("name has %d letters; want at most %d", len(name), maxName)
	}
	return ""
}

// stringOf is the text of a string, with variables in it or not.
func stringOf(raw any) (string, bool) {
	switch s := raw.(type) {
	case string:
		return s, true
	case variable:
		return string(s), true
	}
	return "", false
}

// found describes a value in a message.
func found(raw any) string {
	switch v := raw.(type) {
	case string:
		return fmt.Sprintf("string %q", v)
	case variable:
		return fmt.Sprintf("string %q", string(v))
	case map[string]any:
		return "table"
	case []any:
		return "list"
	case time.Time:
		return "date"
	}
	return fmt.Sprint(raw)
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// check calls the Check methods of v and all that it holds.
func (b *binder) check(v reflect.Value, key string) {
	t := v.Type()
	switch {
	case t.Kind() == reflect.Pointer:
		if !v.IsNil() {
			b.check(v.Elem(), key)
		}
	case isChoice(t):
		if inner := v.Addr().Interface().(chooser).inline(); inner.IsValid() {
			b.check(inner, key)
		}
	case t.Kind() == reflect.Slice && isChoice(t.Elem()):
		for i := range v.Len() {
			b.check(v.Index(i), elementOf(key, i, v.Len()))
		}
	case t.Kind() == reflect.Slice:
		for i := range v.Len() {
			b.check(v.Index(i), element(key, i))
		}
	case t.Kind() == reflect.Map:
		for _, name := range sortedKeys(v) {
			e := reflect.New(t.Elem()).Elem() // elements of maps have no address
			e.Set(v.MapIndex(reflect.ValueOf(name)))
			b.check(e, join(key, name))
		}
	case t.Kind() == reflect.Struct:
		if c, ok := v.Addr().Interface().(checker); ok {
			c.Check(func(inner, problem string) {
				at := strings.Trim(key+"."+inner, ".")
				if !b.failed(at) {
					b.report(at, problem)
				}
			})
		}
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				b.check(v.Field(i), b.keyOf(t.Field(i), key))
			}
		}
	}
}

func (b *binder) keyOf(f reflect.StructField, key string) string {
	if f.Anonymous {
		return key
	}
	return join(key, f.Tag.Get("toml"))
}
