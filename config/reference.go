package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"gateway/internal/unit"
)

// Reference is docs/configuration.md: every option with its effect, unit,
// default and bounds.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(introduction)
	b.WriteString("| variable | option | |\n|---|---|---|\n")
	for _, o := range overrides {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", o.variable, o.key, o.effect)
	}
	b.WriteString("\n## Top of the file\n\nThese stand above the first `[table]`.\n\n")
	for _, f := range fieldsOf(configType) {
		if !isSection(f.typ) {
			option(&b, f)
		}
	}
	for _, s := range sections() {
		fmt.Fprintf(&b, "\n## `%s`\n\n", s.header)
		if isUnmarshaler(s.typ) { // a string at the top of the file will do
			fmt.Fprintf(&b, "*%s*\n\n", describe(s.field))
		}
		paragraphs(&b, s.field.comment())
		for _, f := range fieldsOf(s.typ) {
			option(&b, f)
		}
	}
	text := bytes.ReplaceAll(b.Bytes(), []byte("\n\n\n"), []byte("\n\n"))
	return append(bytes.TrimRight(text, "\n"), '\n')
}

const introduction = "# Configuration\n\n" +
	"<!-- Written by `go generate ./config` from the comments of the options. Do not edit. -->\n\n" +
	"One TOML file, `config.toml` unless `--config` says otherwise. `gateway check` reads it as the gateway would and reports every mistake with its line; " +
	"`gateway schema` prints a JSON Schema with which editors complete it. The [config.toml](../config.toml) of the repository has every option in it.\n\n" +
	"The smallest one:\n\n" +
	"```toml\nlisten = \":8080\"\n\n[upstream.app]\nservers = [\"127.0.0.1:3000\", \"127.0.0.1:3001\"]\n```\n\n" +
	"- An unknown key is an error. A missing key has its default.\n" +
	"- **Durations** are strings with `ms`, `s`, `m`, `h` or `d`: `\"2s\"`, `\"1m30s\"`. " +
	"**Sizes** have `B`, `KiB`, `MiB`, `GiB`, or `KB`, `MB`, `GB` for powers of ten. **Percentages** end in `%`. Bare numbers are refused there.\n" +
	"- Where a list of strings is wanted, one string will do.\n" +
	"- Options that take a **name, table or true** are given the name of a table such as `[cors.NAME]`, the table itself in line, or `true` for its defaults; `false` is off.\n" +
	"- Strings may hold **variables**: `${NAME}` and `${NAME:-default}` of the environment (the default is for unset and empty ones), and `${file:/run/secrets/x}` for what a file holds, " +
	"its last line end removed. A variable that is not set is an error; `$$` is a dollar sign. A string that is one variable and nothing else also does where a number or a switch is wanted. " +
	"Values from files are never shown.\n" +
	"- Files are relative to the folder that the gateway runs in.\n" +
	"- Everything takes effect on a reload. A file with a mistake changes nothing.\n\n" +
	"Environment variables that override the file:\n\n"

// option writes an option, and below it those of the table that it may be.
func option(b *bytes.Buffer, f field) {
	fmt.Fprintf(b, "### `%s`\n\n*%s*\n\n", f.key, describe(f))
	paragraphs(b, f.comment())
	inner := elem(f.typ)
	if !isTable(inner) {
		return
	}
	for _, of := range fieldsOf(inner) {
		bullet(b, of)
	}
	b.WriteString("\n")
}

func bullet(b *bytes.Buffer, f field) {
	fmt.Fprintf(b, "- `%s` (*%s*): %s\n", f.key, describe(f), markdown(strings.ReplaceAll(f.comment(), "\n", " ")))
}

func paragraphs(b *bytes.Buffer, text string) {
	for p := range strings.SplitSeq(text, "\n") {
		if p != "" {
			b.WriteString(markdown(p) + "\n\n")
		}
	}
}

// markdown is plain text in Markdown: "*" is no emphasis.
func markdown(text string) string { return strings.ReplaceAll(text, "*", `\*`) }

// describe names the type, bounds and default of an option.
func describe(f field) string {
	parts := []string{typeInWords(f.typ)}
	switch {
	case f.enum != nil && f.typ.Kind() == reflect.Slice:
		parts[0] = "list of `" + strings.Join(f.enum, "`, `") + "`"
	case f.enum != nil:
		parts[0] = "one of `" + strings.Join(f.enum, "`, `") + "`"
	}
	switch {
	case f.min != "" && f.max != "":
		parts = append(parts, f.min+" to "+f.max)
	case f.min != "":
		parts = append(parts, "at least "+f.min)
	case f.max != "":
		parts = append(parts, "at most "+f.max)
	}
	if f.fallback != "" {
		v := reflect.New(f.typ).Elem()
		if err := setText(v, f.fallback); err != nil {
			panic("BUG: default of " + f.name + ": " + err.Error())
		}
		text := renderer{}.value(v, "", f)
		if isText(f.typ) || isUnmarshaler(f.typ) {
			text = quote(f.fallback)
		}
		parts = append(parts, "default `"+text+"`")
	}
	return strings.Join(parts, ", ")
}

var plural = strings.NewReplacer("address or range", "addresses and ranges", "address", "addresses", "string", "strings", "table", "tables", "number", "numbers", "percentage", "percentages", "or", "and")

func typeInWords(t reflect.Type) string {
	switch t {
	case durationType:
		return "duration"
	case sizeType:
		return "size"
	case reflect.TypeFor[unit.Percent]():
		return "percentage"
	case reflect.TypeFor[unit.Rate]():
		return "rate"
	case reflect.TypeFor[unit.Prefix]():
		return "address or range"
	case addressType, reflect.TypeFor[OptionalAddress]():
		return "address"
	}
	switch {
	case isChoice(t):
		if f, ok := listField(reflect.New(t).Interface().(chooser).table()); ok {
			return "name, table, " + typeInWords(f.typ) + " or true"
		}
		return "name, table or true"
	case t.Kind() == reflect.Slice && isChoice(t.Elem()):
		return typeInWords(t.Elem()) + ", or a list of names and tables"
	case isText(t):
		return "string"
	case isUnmarshaler(t):
		var forms []string
		for _, form := range shortForms(t) {
			forms = append(forms, map[any]string{"string": "string", "boolean": "true"}[form["type"]])
		}
		return strings.Join(append(forms, "table"), " or ")
	}
	switch t.Kind() {
	case reflect.Slice:
		return "list of " + plural.Replace(typeInWords(t.Elem()))
	case reflect.Map:
		return "table of " + plural.Replace(typeInWords(t.Elem()))
	case reflect.Pointer, reflect.Struct:
		return "table"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "number"
	}
	return "whole number"
}
