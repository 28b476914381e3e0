package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway"
)

// FuzzParse checks that whatever the file holds, it is accepted or refused
// with places, and that what is accepted can be shown and read again.
func FuzzParse(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.toml")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add(gateway.DemoConfig)
	env := map[string]string{"PORT": "8080", "NAME": "users", "EMPTY": ""}
	lookup := func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("config.toml", text, lookup)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 || c != nil {
				t.Fatalf("not problems: %v", err)
			}
			for _, p := range problems {
				if p.Source == "config.toml" && (p.Line < 1 || p.Line > 1+strings.Count(string(text), "\n")) || p.Text == "" {
					t.Fatalf("no place in the file: %+v", p)
				}
			}
			return
		}
		if len(c.Routes) == 0 {
			t.Fatal("no route")
		}
		names := map[string]bool{}
		for i := range c.Routes {
			r := &c.Routes[i]
			if r.Rule(); names[r.Name] || checkName(r.Name) != "" {
				t.Fatalf("route name %q", r.Name)
			}
			names[r.Name] = true
		}
		effective := c.Effective()
		if strings.Contains(string(effective), masked) {
			return // a secret may be anything
		}
		again, err := Parse("config.toml", effective, nil)
		if err != nil {
			t.Fatalf("what is in effect is refused: %v\n%s", err, effective)
		}
		if changes, _ := Diff(c, again); changes != nil {
			t.Fatalf("what is in effect reads differently: %q\n%s", changes, effective)
		}
	})
}

// FuzzIndex checks that lines are found in any text, TOML or not.
func FuzzIndex(f *testing.F) {
	f.Add("[a]\nb = [1, {c = '''\n'''}]\n")
	f.Add("a.\"b\\\"\".c = \"\"\"\\\"\"\"\"\n[[x]]\n[x.y]")
	f.Add("{{{{{{!0,0]{{{{!0,0]]0") // nested too deep, and then no TOML
	f.Fuzz(func(t *testing.T, text string) {
		last := 1 + strings.Count(text, "\n")
		for key, line := range index(text) {
			if line < 1 || line > last {
				t.Fatalf("%s: line %d of %d", key, line, last)
			}
		}
	})
}
