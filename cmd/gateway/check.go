package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"gateway/config"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate a configuration file",
		Long: `Validate a configuration file without serving anything. Every mistake is one
line on standard error: file, line, key, what was found and what is wanted. What
is allowed but probably not meant is a warning. Exit status 1 when there are
mistakes; warnings do not count.`,
		Args: noArgs,
	}
	path := configFlag(cmd)
	effective := cmd.Flags().Bool("effective", false, "print the configuration with all defaults, secrets masked")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return problems(err)
		}
		for _, w := range c.Warnings() {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s (warning)\n", w)
		}
		if *effective {
			_, err := cmd.OutOrStdout().Write(c.Effective())
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %s, %s\n", *path, count(len(c.Routes), "route"), count(len(c.Upstreams), "upstream"))
		return nil
	}
	return cmd
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration",
		Long: `Print the JSON Schema of the configuration, so that editors complete and check
it as it is written. For editors with the Taplo language server: save the output
as gateway.schema.json, and begin config.toml with

    #:schema ./gateway.schema.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema())
			return err
		},
	}
}

func healthcheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running gateway whether it is ready",
		Long: `Ask the gateway that runs with this configuration whether it is ready, on its
probes or admin address. For containers without a shell: exit status 0 or 1.`,
		Args: noArgs,
	}
	path := configFlag(cmd)
	timeout := cmd.Flags().Duration("timeout", 2*time.Second, "longest time for the answer")
	cmd.RunE = func(_ *cobra.Command, _ []string) error {
		c, err := config.Load(*path)
		if err != nil {
			return problems(err)
		}
		var o *operator
		switch {
		case c.Probes.On():
			o, err = newOperator(reachable(c.Probes.Address), "", nil)
		case c.Admin.Address.On():
			o, err = ownOperator(c)
		default:
			err = errors.New("neither probes nor admin has an address; nothing can be asked")
		}
		if err != nil {
			return err
		}
		return o.ready("/readyz", *timeout)
	}
	return cmd
}
