// Package comments takes the comments of option structs from their source, so
// that the reference and the schema say what the code says.
package comments

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// folders are the packages that declare options, relative to the module.
var folders = []string{"accesslog", "config", "internal/redisclient", "listener", "middleware", "middleware/cache", "middleware/compress", "middleware/ratelimit", "tracing", "upstream", "upstream/dependency"}

// Collect reads the packages below the module's folder. The result has the
// comment of each option as package.Type.Field, paragraphs separated by line
// ends.
func Collect(module string) (map[string]string, error) {
	all := map[string]string{}
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(module, folder, "*.go"))
		if err != nil {
			return nil, fmt.Errorf("list files: %w", err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			if err := collect(all, path.Base(folder), file); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func collect(all map[string]string, pkg, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read source: %w", err)
	}
	if !bytes.Contains(text, []byte("`toml:")) {
		return nil
	}
	tree, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse source: %w", err)
	}
	for _, decl := range tree.Decls {
		general, ok := decl.(*ast.GenDecl)
		if !ok || general.Tok != token.TYPE {
			continue
		}
		for _, spec := range general.Specs {
			typ := spec.(*ast.TypeSpec)
			fields, ok := typ.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, f := range fields.Fields.List {
				if f.Tag == nil || !strings.Contains(f.Tag.Value, "toml:") || strings.Contains(f.Tag.Value, `toml:"-"`) {
					continue
				}
				for _, ident := range f.Names {
					all[pkg+"."+typ.Name.Name+"."+ident.Name] = unwrap(f.Doc.Text())
				}
			}
		}
	}
	return nil
}

// unwrap makes one line of each paragraph.
func unwrap(text string) string {
	paragraphs := strings.Split(strings.TrimSpace(text), "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(p), " ")
	}
	return strings.Join(paragraphs, "\n")
}

// JSON is the form in which the comments are embedded.
func JSON(all map[string]string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if err := e.Encode(all); err != nil {
		panic("BUG: " + err.Error())
	}
	return b.Bytes()
}
