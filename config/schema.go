package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"

	"gateway/internal/unit"
)

// Schema is the JSON Schema (draft 2020-12) of the file, for editors that
// complete and check TOML. It is somewhat wider than what Parse accepts: what
// depends on several options is not in it.
func Schema() []byte {
	root := schemaOfTable(configType)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Configuration of the gateway"
	root["$defs"] = schemaUnits
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(root); err != nil {
		panic("BUG: " + err.Error())
	}
	return b.Bytes()
}

type object = map[string]any

// hasVariable matches strings whose value is known only when they are read.
const hasVariable = `\$\{.+\}`

// schemaUnits are the forms of strings.
var schemaUnits = object{
	"variable": object{"type": "string", "pattern": "^" + hasVariable + "$"},
	"duration": pattern(`0|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h|d))+`, "2s", "1m30s", "7d"),
	"size":     pattern(`0|[0-9]+(B|KiB|MiB|GiB|KB|MB|GB)`, "64KiB", "10MiB"),
	"percent":  pattern(`[0-9]+(\.[0-9]+)?%`, "20%"),
	"rate":     pattern(`[0-9]+/[smhd]`, "100/s"),
	"prefix":   pattern(`[0-9a-fA-F:.]+(/[0-9]+)?`, "10.0.0.0/8", "::1"),
	"name":     object{"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
}

func pattern(text string, examples ...string) object {
	return object{"type": "string", "pattern": "^(" + text + ")$|" + hasVariable, "examples": examples}
}

func ref(name string) object { return object{"$ref": "#/$defs/" + name} }

func anyOf(forms ...object) object {
	if len(forms) == 1 {
		return forms[0]
	}
	return object{"anyOf": forms}
}

// schemaOfTable is a struct as a table.
func schemaOfTable(t reflect.Type) object {
	properties := object{}
	for _, f := range fieldsOf(t) {
		s := schemaOf(f.typ, f)
		if text := f.comment(); text != "" {
			s["description"] = text
		}
		if f.fallback != "" {
			s["default"] = defaultOf(f)
		}
		properties[f.key] = s
	}
	return object{"type": "object", "properties": properties, "additionalProperties": false}
}

// schemaOf is the schema of an option's values.
func schemaOf(t reflect.Type, f field) object {
	switch {
	case f.enum != nil && t.Kind() == reflect.String:
		return anyOf(object{"enum": f.enum}, ref("variable"))
	case f.enum != nil && t.Kind() != reflect.Slice:
		var values []int
		for _, text := range f.enum {
			n, _ := strconv.Atoi(text)
			values = append(values, n)
		}
		return anyOf(object{"enum": values}, ref("variable"))
	case isChoice(t):
		inner := reflect.New(t).Interface().(chooser).table()
		forms := []object{ref("name"), {"type": "boolean"}, schemaOfTable(inner)}
		if list, ok := listField(inner); ok {
			forms = append(forms, schemaOf(list.typ, list))
		}
		return anyOf(forms...)
	case isText(t):
		if name, ok := unitNames[t]; ok {
			return ref(name)
		}
		return object{"type": "string"}
	case t.Kind() == reflect.Pointer:
		return schemaOfTable(t.Elem())
	case isUnmarshaler(t):
		return anyOf(append(shortForms(t), schemaOfTable(t))...)
	case t.Kind() == reflect.Struct:
		return schemaOfTable(t)
	case t.Kind() == reflect.Slice:
		e := t.Elem()
		list := object{"type": "array", "items": schemaOf(e, field{enum: f.enum})}
		if isTable(e) && !isUnmarshaler(e) {
			return list
		}
		return anyOf(list, schemaOf(e, field{enum: f.enum}))
	case t.Kind() == reflect.Map:
		table := object{"type": "object", "additionalProperties": schemaOf(t.Elem(), field{})}
		if isTable(t.Elem()) {
			table["propertyNames"] = ref("name")
		}
		return table
	case t.Kind() == reflect.Bool:
		return anyOf(object{"type": "boolean"}, ref("variable"))
	case t.Kind() == reflect.Float64:
		return anyOf(bounded(object{"type": "number"}, f), ref("variable"))
	}
	return anyOf(bounded(object{"type": "integer"}, f), ref("variable"))
}

var unitNames = map[reflect.Type]string{
	durationType:                    "duration",
	sizeType:                        "size",
	reflect.TypeFor[unit.Percent](): "percent",
	reflect.TypeFor[unit.Rate]():    "rate",
	reflect.TypeFor[unit.Prefix]():  "prefix",
}

func bounded(s object, f field) object {
	if f.min != "" {
		s["minimum"] = json.Number(f.min)
	}
	if f.max != "" {
		s["maximum"] = json.Number(f.max)
	}
	return s
}

// shortForms are the forms besides a table that an option accepts.
func shortForms(t reflect.Type) (forms []object) {
	accepts := func(v any) bool { return reflect.New(t).Interface().(unmarshaler).UnmarshalTOML(v) == nil }
	if accepts("text") || accepts("127.0.0.1:1") {
		forms = append(forms, object{"type": "string"})
	}
	if accepts(true) {
		forms = append(forms, object{"type": "boolean"})
	}
	return forms
}

// defaultOf is the default of an option as JSON.
func defaultOf(f field) any {
	switch f.typ.Kind() {
	case reflect.Slice:
		return strings.Split(f.fallback, ",")
	case reflect.Bool:
		return f.fallback == "true"
	case reflect.Int, reflect.Int64, reflect.Float64:
		if !isText(f.typ) {
			return json.Number(f.fallback)
		}
	}
	if isUnmarshaler(f.typ) && f.fallback == "true" {
		return true // of an option that is a table or a bare true
	}
	return f.fallback
}
