package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
				if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+a+" ") {
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
			return err
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
		if !strings.Contains(" "+strings.Join(kinds, " ")+" ", " "+k.name+" ") {
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
	for i, k := range profileKinds {
		if files[i] != "" && failures[i] == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%-10s go tool pprof %s\n", k.name, files[i])
		}
	}
	return errors.Join(failures...)
}

// save writes an answer to a file, which is complete or not there.
func (o *operator) save(ctx context.Context, path, file string) (err error) {
	resp, err := o.do(ctx, "GET", path)
	if err != nil {
		var r *refusal
		if errors.As(err, &r) && strings.HasPrefix(r.status, "404") {
			return errors.New("the gateway offers no profiles; set pprof = true in [admin]")
		}
		return err
	}
	defer resp.Body.Close()
	f, err := os.CreateTemp(filepath.Dir(file), ".profile-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = io.Copy(f, resp.Body); err == nil {
		err = f.Chmod(0o644)
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return os.Rename(f.Name(), file)
}
