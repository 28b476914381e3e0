// Command gateway is the reverse-proxy gateway: it serves, checks and shows
// its configuration, and demonstrates itself.
//
// Exit status: 0 when all went well, 1 when it did not, 2 when the command
// line could not be understood.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker (-X main.version=…).
var version = ""

func main() {
	root := &cobra.Command{
		Use:           "gateway",
		Short:         "A reverse-proxy performance gateway",
		Long:          "A reverse-proxy performance gateway: one binary in front of services that exist\nalready, configured by one TOML file, watched through a Prometheus endpoint.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(runCommand(), checkCommand(), demoCommand(), schemaCommand(), healthcheckCommand(), purgeCommand(), explainCommand(), loadCommand(), profileCommand(), versionCommand(), usersCommand())
	root.SetHelpCommand(helpCommand())
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" { // does not mind an unknown shell
			c.Args, c.RunE = noArgs, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return
	}
	var usage usageError
	switch {
	case errors.Is(err, errSilent):
		os.Exit(1)
	case errors.As(err, &usage), isUnknownCommand(err):
		fmt.Fprintf(os.Stderr, "gateway: %v\nSee gateway --help.\n", err)
		os.Exit(2)
	}
	fmt.Fprintf(os.Stderr, "gateway: %v\n", err)
	os.Exit(1)
}

// errSilent ends with exit status 1 when everything has been said already.
var errSilent = errors.New("failed")

// usageError is a command line that could not be understood.
type usageError struct{ error }

// isUnknownCommand finds the error that cobra has no type for: the arguments
// of a command without a function of its own.
func isUnknownCommand(err error) bool {
	const start = "unknown command"
	return len(err.Error()) > len(start) && err.Error()[:len(start)] == start
}

// noArgs refuses arguments as a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		if cmd.Flags().Lookup("config") != nil {
			return usageError{fmt.Errorf("unexpected argument %q; did you mean --config %[1]s?", args[0])}
		}
		return usageError{fmt.Errorf("unexpected argument %q; %s takes none", args[0], cmd.CommandPath())}
	}
	return nil
}

// helpCommand is cobra's own, but for the exit status when there is no such
// command.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = fmt.Errorf("%s has no command %q", about.CommandPath(), rest[0])
			}
			if err != nil {
				return usageError{err}
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print what this binary is",
		Args:  noArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "gateway %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}

// buildVersion is what the linker was told, else the commit that the binary
// was built from, else "dev".
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return s.Value[:12]
			}
		}
	}
	return "dev"
}
