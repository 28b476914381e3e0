// Command generate writes the files that are made from the options' structs.
// It runs in the folder config: once for the comments, and then, compiled anew
// with these, for the reference.
package main

import (
	"fmt"
	"os"

	"gateway/config"
	"gateway/config/internal/comments"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "comments":
		all, err := comments.Collect("..")
		if err != nil {
			return err
		}
		return os.WriteFile("comments.json", comments.JSON(all), 0o644)
	case len(args) == 1 && args[0] == "reference":
		return os.WriteFile("../docs/configuration.md", config.Reference(), 0o644)
	}
	return fmt.Errorf("unexpected arguments %q; want comments or reference", args)
}
