// Command users runs one replica of the user service. It is configured by the
// environment; see users.FromEnv. It writes the bound address to standard
// output, what happens to standard error, and stops on SIGTERM or SIGINT.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"gateway/examples/users"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once

	redis.SetLogger(&logging.VoidLogger{}) // it reports each dial that fails; the service reports the first

	options, err := users.FromEnv(os.LookupEnv)
	if err == nil {
		options.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
		options.Version = version()
		options.Ready = func(address string) { fmt.Printf("listening on http://%s\n", address) }
		err = users.Run(ctx, options)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "dev"
	}
	return info.Main.Version
}
