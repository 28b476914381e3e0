package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
)

func purgeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Remove stored responses from a running gateway",
		Long: `Remove stored responses from the cache of the gateway that runs with this
configuration, and of those that share its Redis: those of a URL, of all URLs
that begin alike, of a host, those with a tag (Surrogate-Key, Cache-Tag), or all.

  gateway purge --url https://shop.example.com/item?id=7
  gateway purge --prefix shop.example.com/images/ --soft
  gateway purge --tag user-42`,
		Args: noArgs,
	}
	flags := newOperatorFlags(cmd)
	values := url.Values{}
	texts := map[string]*string{}
	for name, usage := range map[string]string{
		"url": "a URL as clients ask for it", "prefix": "the beginning of URLs: host/path",
		"host": "a host, with its port if URLs have one", "tag": "a tag in Surrogate-Key or Cache-Tag",
	} {
		texts[name] = cmd.Flags().String(name, "", usage)
	}
	all := cmd.Flags().Bool("all", false, "everything")
	soft := cmd.Flags().Bool("soft", false, "count them as stale instead: they are validated first")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for name, text := range texts {
			if *text != "" {
				values.Set(name, *text)
			}
		}
		if *all {
			values.Set("all", "true")
		}
		if len(values) != 1 {
			return usageError{errors.New("want exactly one of --url, --prefix, --host, --tag and --all")}
		}
		if *soft {
			values.Set("soft", "true")
		}
		o, err := flags.open()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), answerTime)
		defer cancel()
		resp, err := o.do(ctx, "POST", "/purge?"+values.Encode())
		if err != nil {
			return err
		}
		resp.Body.Close()
		fmt.Fprintln(cmd.OutOrStdout(), "purged")
		return nil
	}
	return cmd
}
