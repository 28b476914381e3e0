package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// profileKinds are what "gateway profile" can take; those that are true take
// the time that is asked for, the others show the moment.
var profileKinds = []struct {
	name, path string
	lasts      bool
	about      string
}{
	{"cpu", "profile", true, "where the processors' time goes"},
	{"heap", "heap", false, "what memory is held by, and by whom it was allocated"},
	{"goroutine", "goroutine", false, "what every goroutine is doing"},
	{"block", "block", true, "where goroutines wait for each other"},
	{"mutex", "mutex", true, "which locks are fought for"},
}

func profileCommand() *cobra.Command {
	var names, about []string
	for _, k := range profileKinds {
		names = append(names, k.name)
		about = append(about, fmt.Sprintf("    %-10s %s", k.name, k.about))
	}
	cmd := &cobra.Command{
		Use:   "profile [kind...]",
		Short: "Take profiles of a running gateway",
		Long: `Take profiles of a running gateway through its admin address, all at the same
time, and save them as files for "go tool pprof". Without a kind it takes all:

` + strings.Join(about, "\n") + `

The gateway goes on serving. While it is watched it is a few percent slower.`,
		ValidArgs: names,
		Args: func(_ *cobra.Command, args []string) error {
			for _, a := range args {
				if !slices.Contains(names, a) {
					return usageError{fmt.Errorf("unknown profile %q; want one of %s", a, strings.Join(names, ", "))}
				}
			}
			return nil
		},
	}
	flags := newOperatorFlags(cmd)
	seconds := cmd.Flags().Int("seconds", 10, "how long to watch, 1 to 60")
	folder := cmd.Flags().StringP("output", "o", ".", "folder for the files")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *seconds < 1 || *seconds > 60 {
			return usageError{fmt.Errorf("--seconds is %d; want 1 to 60", *seconds)}
		}
		o, err := flags.open()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			args = names
		}
		if err := os.MkdirAll(*folder, 0o755); err != nil {
			return unwritable(*folder, err)
		}
		return takeProfiles(cmd, o, args, *seconds, *folder)
	}
	return cmd
}

// takeProfiles saves the profiles of these kinds and says where.
func takeProfiles(cmd *cobra.Command, o *operator, kinds []string, seconds int, folder string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Duration(seconds)*time.Second+time.Minute)
	defer cancel()
	stamp := time.Now().Format("20060102-150405")
	files := make([]string, len(profileKinds))
	failures := make([]error, len(profileKinds))
	var all sync.WaitGroup
	for i, k := range profileKinds {
		if !slices.Contains(kinds, k.name) {
			continue
		}
		all.Go(func() {
			path := "/debug/pprof/" + k.path
			if k.lasts {
				path += fmt.Sprintf("?seconds=%d", seconds)
			}
			files[i] = filepath.Join(folder, fmt.Sprintf("gateway-%s-%s.pb.gz", k.name, stamp))
			failures[i] = o.save(ctx, path, files[i])
		})
	}
	all.Wait()
	var different []error
	for i, k := range profileKinds {
		switch err := failures[i]; {
		case err != nil && !slices.ContainsFunc(different, func(e error) bool { return e.Error() == err.Error() }):
			different = append(different, err)
		case err == nil && files[i] != "":
			fmt.Fprintf(cmd.OutOrStdout(), "%-10s go tool pprof %s\n", k.name, files[i])
		}
	}
	return errors.Join(different...)
}

// save writes a profile to a file, which is complete or not there.
func (o *operator) save(ctx context.Context, path, file string) (err error) {
	// First, so that nobody waits for a profile that cannot be kept.
	f, err := os.CreateTemp(filepath.Dir(file), ".profile-*")
	if err != nil {
		return unwritable(filepath.Dir(file), err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	resp, err := o.do(ctx, "GET", path)
	if err != nil {
		var r *refusal
		if errors.As(err, &r) && r.code == http.StatusNotFound {
			return fmt.Errorf("ask %s: no profiles are offered there; set pprof = true in [admin]", o.shown)
		}
		return err
	}
	defer resp.Body.Close()
	body := bufio.NewReader(resp.Body)
	if start, _ := body.Peek(len(zipped)); string(start) != zipped {
		return fmt.Errorf("ask %s: unexpected answer; want a profile", o.shown)
	}
	if _, err = io.Copy(f, body); err == nil {
		err = f.Chmod(0o644)
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", file, err)
	}
	return os.Rename(f.Name(), file)
}

// unwritable says that files cannot be made in a folder.
func unwritable(folder string, err error) error {
	var reason *fs.PathError
	if errors.As(err, &reason) { // its path may be a name of ours
		err = reason.Err
	}
	return fmt.Errorf("write to %s: %w", folder, err)
}

// zipped is how a profile begins.
const zipped = "\x1f\x8b"
