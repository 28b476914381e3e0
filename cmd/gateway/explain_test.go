package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what explain says now into testdata/explain")

// arguments splits a command line; single quotes keep spaces together.
func arguments(line string) (list []string) {
	quoted := strings.Split(line, "'")
	for i, part := range quoted {
		if i%2 == 1 {
			list = append(list, part)
		} else {
			list = append(list, strings.Fields(part)...)
		}
	}
	return list
}

// Each file begins with the command, whose output is the rest. A new case is a
// file with that line, filled in by
//
//	go test ./cmd/gateway -run TestExplainSaysWhatItSaid -update
func TestExplainSaysWhatItSaid(t *testing.T) {
	files, err := filepath.Glob("testdata/explain/*.golden")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d cases, %v; want at least 30", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".golden"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			first, want, _ := strings.Cut(string(text), "\n")
			line, found := strings.CutPrefix(first, "$ gateway explain ")
			if !found {
				t.Fatalf("the first line is %q", first)
			}
			var out bytes.Buffer
			cmd := explainCommand()
			cmd.SilenceUsage, cmd.SilenceErrors = true, true
			cmd.SetArgs(append([]string{"-c", "testdata/explain/config.toml"}, arguments(line)...))
			cmd.SetOut(&out)
			if err := cmd.ExecuteContext(t.Context()); err != nil {
				out.WriteString("error: " + err.Error() + "\n")
				var usage usageError
				if errors.As(err, &usage) {
					out.WriteString("(a mistake in the command line)\n")
				}
			}
			if *update {
				if err := os.WriteFile(name, []byte(first+"\n"+out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got := out.String(); got != want {
				t.Errorf("%s\nsays\n%s\nand not\n%s", first, got, want)
			}
		})
	}
}
