package config

import (
	"bytes"
	"os"
	"testing"

	extract "gateway/config/internal/comments"
)

func TestGeneratedFilesAreFresh(t *testing.T) {
	all, err := extract.Collect("..")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(extract.JSON(all), commentsJSON) {
		t.Error("config/comments.json is stale; run go generate ./config")
	}
	reference, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(Reference(), reference) {
		t.Error("docs/configuration.md is stale; run go generate ./config")
	}
}

func TestEveryOptionHasAComment(t *testing.T) {
	var walk func(fields []field)
	walk = func(fields []field) {
		for _, f := range fields {
			if f.comment() == "" {
				t.Errorf("%s has no comment", f.name)
			}
			if t := elem(f.typ); isTable(t) {
				walk(fieldsOf(t))
			}
		}
	}
	walk(fieldsOf(configType))
}
