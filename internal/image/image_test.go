// Package image tests the Dockerfile without Docker: the steps of its build
// stage run in a copy of the source tree, what the final stage takes from them
// is laid out as in the image, and the image's own commands are run there.
package image

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/internal/load"
)

// source is the root of the source tree.
const source = "../.."

// patience bounds the build, which may have to compile everything.
const patience = 5 * time.Minute

// instruction is a line of a Dockerfile.
type instruction struct {
	name string // in capitals
	args string
}

// stage is what a FROM begins.
type stage struct {
	base, name   string
	instructions []instruction
}

// parse reads a Dockerfile: comments, continued lines, stages.
func parse(t *testing.T, path string) (stages []stage) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			kept = append(kept, line)
		}
	}
	for _, line := range strings.Split(strings.ReplaceAll(strings.Join(kept, "\n"), "\\\n", " "), "\n") {
		name, args, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, args = strings.ToUpper(name), strings.TrimSpace(args)
		switch {
		case name == "":
		case name == "FROM":
			words := strings.Fields(args)
			s := stage{base: words[0]}
			if len(words) == 3 && strings.EqualFold(words[1], "AS") {
				s.name = words[2]
			}
			stages = append(stages, s)
		case len(stages) == 0:
			t.Fatalf("%s before FROM", name)
		default:
			last := &stages[len(stages)-1]
			last.instructions = append(last.instructions, instruction{name, args})
		}
	}
	return stages
}

// find is the last instruction of that name; it must be there.
func (s *stage) find(t *testing.T, name string) string {
	t.Helper()
	found := ""
	for _, i := range s.instructions {
		if i.name == name {
			found = i.args
		}
	}
	if found == "" {
		t.Fatalf("no %s in the stage from %s", name, s.base)
	}
	return found
}

// words reads the JSON form of a command.
func words(t *testing.T, text string) (list []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) == 0 {
		t.Fatalf("%q is no command in JSON form, which an image without a shell needs: %v", text, err)
	}
	return list
}

// absolute is an absolute path in a command.
var absolute = regexp.MustCompile(`(^|[\s='"])(/[\w./-]+)`)

// below puts the absolute paths of a command below a folder.
func below(root, command string) string {
	return absolute.ReplaceAllString(command, "${1}"+root+"${2}")
}

// copyTree copies what COPY does: a file, or the contents of a folder, without
// what .dockerignore names.
func copyTree(t *testing.T, from, to string, ignored []string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != from {
				return nil // somebody else's temporary file
			}
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		for _, name := range ignored {
			if rel == name {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, content, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// build runs the steps of a stage with root as "/".
func build(t *testing.T, s stage, root string) {
	t.Helper()
	ignore, err := os.ReadFile(filepath.Join(source, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	ignored := strings.Fields(string(ignore))
	folder := root
	env := append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	for _, i := range s.instructions {
		switch i.name {
		case "WORKDIR":
			folder = filepath.Join(root, i.args)
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
		case "ARG", "ENV":
			env = append(env, i.args)
		case "COPY":
			files := strings.Fields(i.args)
			to := files[len(files)-1]
			for _, from := range files[:len(files)-1] {
				target := filepath.Join(folder, to)
				if from != "." {
					target = filepath.Join(target, filepath.Base(from))
				}
				copyTree(t, filepath.Join(source, from), target, ignored)
			}
		case "RUN":
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, "sh", "-c", below(root, i.args))
			cmd.Dir, cmd.Env = folder, env
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("RUN %s: %v\n%s", i.args, err, text)
			}
		default:
			t.Fatalf("this test does not know %s", i.name)
		}
	}
}

// assemble copies what the final stage takes from the build into root.
func assemble(t *testing.T, s stage, built, root string) {
	t.Helper()
	for _, i := range s.instructions {
		if i.name != "COPY" {
			continue
		}
		files := strings.Fields(i.args)
		if len(files) != 3 || files[0] != "--from=build" {
			t.Fatalf("COPY %s: an image of its own takes single things from the build stage", i.args)
		}
		from := filepath.Join(built, files[1])
		if _, err := os.Stat(from); err != nil {
			// Not made by the steps: it comes with the base image.
			if !strings.HasPrefix(files[1], "/etc/ssl/certs/") {
				t.Fatalf("COPY %s: %v", i.args, err)
			}
			continue
		}
		copyTree(t, from, filepath.Join(root, files[2]), nil)
	}
}

func TestDockerfileMakesAWorkingImage(t *testing.T) {
	stages := parse(t, filepath.Join(source, "Dockerfile"))
	if len(stages) != 2 || stages[0].name != "build" || stages[1].base != "scratch" {
		t.Fatalf("unexpected stages: %+v", stages)
	}
	root, err := os.MkdirTemp("", "image-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	if err := os.Chmod(root, 0o755); err != nil { // for the user of the image
		t.Fatal(err)
	}
	built, image := filepath.Join(root, "build"), filepath.Join(root, "image")
	build(t, stages[0], built)
	final := &stages[1]
	assemble(t, *final, built, image)

	entry := words(t, final.find(t, "ENTRYPOINT"))
	arguments := words(t, final.find(t, "CMD"))
	_, check, _ := strings.Cut(final.find(t, "HEALTHCHECK"), "CMD ")
	checks := words(t, check)

	t.Run("binary is static", func(t *testing.T) {
		f, err := elf.Open(filepath.Join(image, entry[0]))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				t.Error("the binary wants an interpreter")
			}
		}
		if libraries, _ := f.ImportedLibraries(); len(libraries) > 0 {
			t.Errorf("the binary wants %v", libraries)
		}
		if f.Section(".debug_info") != nil || f.Section(".symtab") != nil {
			t.Error("the binary is not stripped")
		}
		if info, err := os.Stat(filepath.Join(image, entry[0])); err != nil || info.Size() > 40<<20 {
			t.Errorf("the binary has %d bytes, %v", info.Size(), err)
		}
	})

	user, group, _ := strings.Cut(final.find(t, "USER"), ":")
	uid, errUser := strconv.Atoi(user)
	gid, errGroup := strconv.Atoi(group)
	if errUser != nil || errGroup != nil || uid == 0 || gid == 0 {
		t.Errorf("USER %s:%s: want numbers, since an empty image knows no names, and not root", user, group)
	}

	// The image's commands, with its environment, except that the ports are
	// free ones: this machine is not a container.
	address, admin := load.FreeAddress(t), load.FreeAddress(t)
	command := func(list ...string) *exec.Cmd {
		args := make([]string, len(list))
		for i, a := range list {
			args[i] = below(image, a)
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = image
		for _, i := range final.instructions {
			if i.name == "ENV" {
				cmd.Env = append(cmd.Env, i.args)
			}
		}
		cmd.Env = append(cmd.Env, "GATEWAY_LISTEN="+address, "GATEWAY_ADMIN="+admin)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if os.Getuid() == 0 {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
		return cmd
	}
	if text, err := command(entry[0], "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(text), "gateway container go") {
		t.Errorf("gateway version: %v\n%s", err, text)
	}
	var exit *exec.ExitError
	if text, err := command(checks...).CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the health check of nothing: %v\n%s", err, text)
	}

	var log strings.Builder
	run := command(append(entry, arguments...)...)
	run.Stderr = &log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- run.Wait() }()
	defer run.Process.Kill()
	healthy := false
	for end := time.Now().Add(20 * time.Second); !healthy && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		text, err := command(checks...).CombinedOutput()
		healthy = err == nil && len(text) == 0
	}
	if !healthy {
		t.Error("the health check does not pass")
	}
	if resp, err := http.Get("http://" + address + "/"); err != nil || resp.StatusCode != 200 {
		t.Errorf("the gateway of the image: %v", err)
	}
	run.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the end: %v\n%s", err, log.String())
		}
	case <-time.After(20 * time.Second):
		run.Process.Kill()
		t.Errorf("the image does not stop: %v\n%s", <-ended, log.String())
	}
}
