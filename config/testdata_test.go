package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the messages that the files in testdata give into their heads")

// A file of testdata begins with lines about itself: "#! " is a message that
// it gives, error or warning; "#$ " is an environment variable that it is read
// with.
func testdata(t *testing.T, path string) (text string, want []string, env map[string]string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	env = map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if message, ok := strings.CutPrefix(line, "#! "); ok {
			want = append(want, message)
		} else if variable, ok := strings.CutPrefix(line, "#$ "); ok {
			name, value, _ := strings.Cut(variable, "=")
			env[name] = value
		} else {
			break
		}
	}
	return string(b), want, env
}

func parseWith(text string, env map[string]string) (*Config, error) {
	return Parse("config.toml", []byte(text), func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
}

func TestBadFilesGiveTheirMessages(t *testing.T) {
	paths, _ := filepath.Glob("testdata/*.bad.toml")
	if len(paths) < 40 {
		t.Fatalf("only %d files with mistakes", len(paths))
	}
	for _, path := range paths {
		text, want, env := testdata(t, path)
		_, err := parseWith(text, env)
		var problems Problems
		if !errors.As(err, &problems) {
			t.Errorf("%s is accepted (%v)", path, err)
			continue
		}
		compare(t, path, text, problems, want)
	}
}

func TestGoodFilesAreAccepted(t *testing.T) {
	paths, _ := filepath.Glob("testdata/*.good.toml")
	if len(paths) == 0 {
		t.Fatal("no files")
	}
	for _, path := range paths {
		text, want, env := testdata(t, path)
		c, err := parseWith(text, env)
		if err != nil {
			t.Errorf("%s is refused:\n%v", path, err)
			continue
		}
		compare(t, path, text, c.Warnings(), want)
	}
}

// compare checks messages, and with -update writes them down.
func compare(t *testing.T, path, text string, problems Problems, want []string) {
	t.Helper()
	got := messages(problems)
	if slices.Equal(got, want) {
		return
	}
	if !*update {
		t.Errorf("%s:\n got %s\nwant %s", path, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		return
	}
	// Lines in messages count the head, so its length must not change between
	// writing and reading: parse again with a head of the new length.
	body := text
	for strings.HasPrefix(body, "#! ") {
		_, body, _ = strings.Cut(body, "\n")
	}
	_, _, env := testdata(t, path)
	head := strings.Repeat("#! \n", len(got))
	c, err := parseWith(head+body, env)
	if errors.As(err, &problems); c != nil {
		problems = c.Warnings()
	}
	head = ""
	for _, m := range messages(problems) {
		head += "#! " + m + "\n"
	}
	if err := os.WriteFile(path, []byte(head+body), 0o644); err != nil {
		t.Fatal(err)
	}
}

func messages(problems Problems) []string {
	var list []string
	for _, p := range problems {
		list = append(list, p.String())
	}
	return list
}
