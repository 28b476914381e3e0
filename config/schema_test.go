package config

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"gateway"
)

func TestSchemaAcceptsGoodFiles(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	d, hidden := demo()
	texts := map[string]string{"config.toml": string(gateway.DemoConfig), "config.toml in full": d.with(hidden...)}
	paths, _ := filepath.Glob("testdata/*.good.toml")
	for _, path := range paths {
		texts[path], _, _ = testdata(t, path)
	}
	for name, text := range texts {
		var tree map[string]any
		if _, err := toml.Decode(text, &tree); err != nil {
			t.Fatal(err)
		}
		if problem := validate(schema, schema, tree, ""); problem != "" {
			t.Errorf("%s: %s", name, problem)
		}
	}
}

func TestSchemaRefusesWhatDependsOnOneOption(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"unknown-key", "unknown-table", "unknown-enum", "unknown-key-in-inline-table", "duration-bare", "duration-text", "size-bare", "size-unit",
		"percent", "number-quoted", "number-range", "bool-quoted", "table-wanted", "list-wanted", "route-table", "upstream-name", "health-string",
		"server-weight", "admin-false", "redirect", "key-below-table", "limit", "limit-table", "compress", "redis",
	} {
		text, _, _ := testdata(t, "testdata/"+name+".bad.toml")
		var tree map[string]any
		if _, err := toml.Decode(text, &tree); err != nil {
			t.Fatal(err)
		}
		if validate(schema, schema, tree, "") == "" {
			t.Errorf("%s: the schema accepts it", name)
		}
	}
}

// validate is as much of JSON Schema as Schema uses; it gives the first problem.
func validate(root, schema map[string]any, v any, at string) string {
	for word, arg := range schema {
		problem := ""
		switch word {
		case "$ref":
			name := strings.TrimPrefix(arg.(string), "#/$defs/")
			problem = validate(root, root["$defs"].(map[string]any)[name].(map[string]any), v, at)
		case "anyOf":
			for _, form := range arg.([]any) {
				if problem = validate(root, form.(map[string]any), v, at); problem == "" {
					break
				}
			}
		case "type":
			if got := jsonType(v); got != arg && !(got == "integer" && arg == "number") {
				problem = fmt.Sprintf("%s: %s; want %s", at, got, arg)
			}
		case "enum":
			found := false
			for _, e := range arg.([]any) {
				found = found || fmt.Sprint(e) == fmt.Sprint(v)
			}
			if !found {
				problem = fmt.Sprintf("%s: %v is none of %v", at, v, arg)
			}
		case "pattern":
			if s, ok := v.(string); ok && !regexp.MustCompile(arg.(string)).MatchString(s) {
				problem = fmt.Sprintf("%s: %q does not match %s", at, s, arg)
			}
		case "minimum":
			if n, ok := v.(int64); ok && float64(n) < arg.(float64) {
				problem = fmt.Sprintf("%s: %d is below %v", at, n, arg)
			}
		case "maximum":
			if n, ok := v.(int64); ok && float64(n) > arg.(float64) {
				problem = fmt.Sprintf("%s: %d is above %v", at, n, arg)
			}
		case "items":
			list := reflect.ValueOf(v)
			for i := 0; list.Kind() == reflect.Slice && i < list.Len() && problem == ""; i++ {
				problem = validate(root, arg.(map[string]any), list.Index(i).Interface(), element(at, i))
			}
		case "properties":
			table, _ := v.(map[string]any)
			for name, value := range table {
				if s, ok := arg.(map[string]any)[name]; ok && problem == "" {
					problem = validate(root, s.(map[string]any), value, join(at, name))
				}
			}
		case "additionalProperties":
			table, _ := v.(map[string]any)
			for name, value := range table {
				known, _ := schema["properties"].(map[string]any)
				if _, ok := known[name]; ok {
					continue
				}
				if s, ok := arg.(map[string]any); ok {
					problem = validate(root, s, value, join(at, name))
				} else {
					problem = join(at, name) + ": unknown"
				}
			}
		case "propertyNames":
			table, _ := v.(map[string]any)
			for name := range table {
				problem = validate(root, arg.(map[string]any), name, join(at, name))
			}
		case "$schema", "$defs", "title", "description", "default", "examples":
		default:
			problem = "unknown keyword " + word
		}
		if problem != "" {
			return problem
		}
	}
	return ""
}

func jsonType(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case int64:
		return "integer"
	case float64:
		return "number"
	case map[string]any:
		return "object"
	}
	if reflect.ValueOf(v).Kind() == reflect.Slice {
		return "array"
	}
	return fmt.Sprintf("%T", v)
}
