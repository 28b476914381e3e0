package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/pprof/driver"

	"gateway/internal/loadgen"
)

// profileFor is how long a scenario is profiled, in seconds.
const profileFor = 2

// profile takes a CPU profile of the gateway in each scenario under a closed
// loop, and writes SCENARIO.pb.gz and SCENARIO.html, a flame graph that needs
// nothing else, to a folder.
func profile(b *bench, todo []*scenario, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, s := range todo {
		if s.idle > 0 {
			continue // nothing runs
		}
		name := filepath.Join(dir, s.name)
		if err := b.profileOne(s, name+".pb.gz"); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := flameGraph(name+".pb.gz", name+".html"); err != nil {
			return fmt.Errorf("%s: draw: %w", s.name, err)
		}
		fmt.Printf("%-12s %s.html   go tool pprof -http=: %s.pb.gz\n", s.name, name, name)
	}
	return nil
}

func (b *bench) profileOne(s *scenario, file string) error {
	v, err := b.serve(findRival("gateway"), s, s.needs)
	if err != nil {
		return err
	}
	defer v.stop()
	plan := v.plan
	plan.First, plan.Warmup, plan.Duration = 1_000, 200*time.Millisecond, profileFor*time.Second+200*time.Millisecond
	run, err := loadgen.Start(context.Background(), plan, nil)
	if err != nil {
		return err
	}
	<-run.Measuring()
	text, err := v.admin(fmt.Sprintf("/debug/pprof/profile?seconds=%d", profileFor))
	run.Wait()
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// admin asks the gateway's admin server.
func (v *served) admin(path string) ([]byte, error) {
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(v.setting.Dir, "admin.sock"))
		},
	}}
	response, err := client.Get("http://localhost" + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != 200 {
		err = fmt.Errorf("%s: %s %.200s", path, response.Status, text)
	}
	return text, err
}

// flameGraph writes the page that "go tool pprof -http" would serve. It holds
// its style and script; its other views are not there.
func flameGraph(profile, page string) error {
	var failed error
	err := driver.PProf(&driver.Options{
		Flagset: &arguments{FlagSet: flag.NewFlagSet("pprof", flag.ContinueOnError), list: []string{"-http=localhost:0", "-no_browser", "-symbolize=none", profile}},
		UI:      silent{},
		HTTPServer: func(args *driver.HTTPServerArgs) error {
			answer := httptest.NewRecorder()
			args.Handlers["/flamegraph"].ServeHTTP(answer, httptest.NewRequest("GET", "/flamegraph", nil))
			if answer.Code != 200 {
				failed = fmt.Errorf("status %d: %.200s", answer.Code, answer.Body)
				return failed
			}
			failed = os.WriteFile(page, answer.Body.Bytes(), 0o644)
			return failed
		},
	})
	if failed != nil {
		return failed
	}
	return err
}

// arguments is the command line of pprof's driver.
type arguments struct {
	*flag.FlagSet
	list []string
}

func (a *arguments) StringList(name, value, usage string) *[]*string {
	return &[]*string{a.String(name, value, usage)}
}

func (a *arguments) ExtraUsage() string   { return "" }
func (a *arguments) AddExtraUsage(string) {}

func (a *arguments) Parse(func()) []string {
	if err := a.FlagSet.Parse(a.list); err != nil {
		return nil
	}
	return a.Args()
}

// silent is nobody in front of a screen.
type silent struct{}

func (silent) ReadLine(string) (string, error)     { return "", io.EOF }
func (silent) Print(...any)                        {}
func (silent) PrintErr(a ...any)                   { fmt.Fprintln(os.Stderr, strings.TrimSpace(fmt.Sprint(a...))) }
func (silent) IsTerminal() bool                    { return false }
func (silent) WantBrowser() bool                   { return false }
func (silent) SetAutoComplete(func(string) string) {}
