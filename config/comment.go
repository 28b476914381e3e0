package config

import (
	_ "embed"
	"encoding/json"
	"sync"
)

//go:generate go run ./internal/generate comments
//go:generate go run ./internal/generate reference

//go:embed comments.json
var commentsJSON []byte

// comments are those of the options in their source, by package.Type.Field.
var comments = sync.OnceValue(func() (all map[string]string) {
	if err := json.Unmarshal(commentsJSON, &all); err != nil {
		panic("BUG: comments.json: " + err.Error())
	}
	return all
})

// comment is what the option's declaration says, paragraphs separated by line
// ends.
func (f field) comment() string { return comments()[f.name] }
