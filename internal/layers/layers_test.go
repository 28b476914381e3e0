// Package layers keeps the imports of the module pointing downward.
package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layers are the rungs of the house, lowest first; a package may import only
// packages of lower rungs, or those that its own rung's beside list names.
var layers = []struct {
	packages []string
	beside   []string // packages of this rung that others of it may import
}{
	{packages: []string{"internal", "wire", "metrics"}, beside: []string{"internal", "wire"}},
	{packages: []string{"upstream", "accesslog", "tracing", "middleware/cache", "middleware/ratelimit", "middleware/compress"}},
	{packages: []string{"exchange"}},
	{packages: []string{"middleware", "listener", "config"}, beside: []string{"middleware", "listener"}},
	{packages: []string{"proxy"}},
	{packages: []string{"admin", "examples/users"}},
	{packages: []string{"cmd", "benchmarks"}},
}

// rung finds the layer of a package by the longest listed name that contains it.
func rung(pkg string) (layer int, name string) {
	layer = -1
	for i, l := range layers {
		for _, p := range l.packages {
			if (pkg == p || strings.HasPrefix(pkg, p+"/")) && len(p) > len(name) {
				layer, name = i, p
			}
		}
	}
	return layer, name
}

func TestImportsPointDownward(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "gateway/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; packages++ {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from, fromName := rung(strings.TrimPrefix(p.ImportPath, "gateway/"))
		if p.ImportPath == "gateway" { // embedded files only
			if len(p.Imports) > 1 {
				t.Errorf("the root package imports %v; it may only embed", p.Imports)
			}
			continue
		}
		if from < 0 {
			t.Errorf("%s stands on no layer; give it one in this test and in ARCHITECTURE.md", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			rel, ours := strings.CutPrefix(imported, "gateway/")
			if !ours {
				continue
			}
			to, toName := rung(rel)
			if to < from || fromName == toName {
				continue
			}
			if to == from && contains(layers[to].beside, toName) {
				continue
			}
			t.Errorf("%s imports %s, which stands above or beside it", p.ImportPath, imported)
		}
	}
	if packages < 10 {
		t.Fatalf("go list named only %d packages", packages)
	}
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}
