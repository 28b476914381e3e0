package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"gateway/config"
	"gateway/internal/handover"
	"gateway/proxy"
)

// configFlag adds --config to a command.
func configFlag(cmd *cobra.Command) *string {
	path := cmd.Flags().StringP("config", "c", "config.toml", "configuration file")
	cmd.MarkFlagFilename("config", "toml")
	return path
}

func runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve",
		Long: `Serve until SIGTERM or SIGINT: then what is under way is finished, within the
grace period, and a second signal ends at once. SIGHUP reads the configuration
anew, SIGUSR1 opens the access log anew. SIGUSR2 starts the binary anew, another
version of it perhaps, hands it the listening sockets, and ends this process like
SIGTERM once the new one serves: no connection is refused or cut.

Listening sockets may come from systemd (socket activation); it is told when the
gateway serves, reloads and stops.`,
		Args: noArgs,
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return serve(cmd.Context(), *path, nil)
	}
	return cmd
}

// serve runs a gateway with the file until a signal or the end of ctx. ready,
// if not nil, is called once it serves.
func serve(ctx context.Context, path string, ready func()) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	sockets, err := handover.Receive()
	if err != nil {
		return err
	}
	text, _ := os.ReadFile(path) // before it is loaded: then no change of it can be missed
	c, err := config.Load(path)
	if err != nil {
		return problems(err)
	}
	log, journal := newLog(c.Log)
	admins := &admins{log: log, sockets: sockets}
	g, err := proxy.New(proxy.Options{
		Load:    func() (*config.Config, error) { return config.Load(path) },
		Version: buildVersion(),
		Log:     log,
		Sockets: sockets,
		Parts:   []proxy.Part{journal, admins, &memoryLimit{}},
	})
	if err != nil {
		return problems(err)
	}
	admins.serve(g)
	defer admins.close()

	go func() {
		for s := range signals {
			switch s {
			case syscall.SIGHUP:
				go reload(ctx, g) // the next signal does not wait for it
			case syscall.SIGUSR1:
				if err := g.ReopenLogs(); err != nil {
					log.Error(err.Error())
				}
			case syscall.SIGUSR2:
				go func() {
					if succeed(ctx, g, admins, log) {
						notify(daemon.SdNotifyStopping)
						stop()
					}
				}()
			default:
				if ctx.Err() != nil {
					log.Warn("second signal, ending at once")
					os.Exit(1)
				}
				notify(daemon.SdNotifyStopping)
				stop()
			}
		}
	}()
	go func() {
		if err := g.Watch(ctx, path, text); err != nil {
			log.Warn("changes of the configuration file go unnoticed; SIGHUP reloads it", "error", err)
		}
	}()
	if ready != nil {
		ready()
	}
	if err := sockets.Ready(); err != nil {
		log.Warn("the process before this one was not told that it can end", "error", err)
	}
	notify(daemon.SdNotifyReady)
	g.Run(ctx)
	return nil
}

// reload tells systemd about a reload, which logs what comes of it.
func reload(ctx context.Context, g *proxy.Gateway) {
	notify(daemon.SdNotifyReloading + "\n" + monotonic())
	_, _ = g.Reload(ctx)
	notify(daemon.SdNotifyReady)
}

// succeed hands the sockets to a new process of the binary, as it is on disk
// now, and reports whether that one serves. What went wrong is logged; this
// process then serves on.
func succeed(ctx context.Context, g *proxy.Gateway, a *admins, log *slog.Logger) bool {
	path, err := os.Executable()
	if err == nil {
		log.Info("starting a successor", "binary", path)
		err = g.HandOver(func(sockets []*os.File) error {
			return a.handOver(sockets, func(sockets []*os.File) error {
				pid, err := a.sockets.Start(ctx, path, os.Args[1:], sockets)
				if err == nil {
					notify("MAINPID=" + strconv.Itoa(pid))
					log.Info("the successor serves, this process ends", "process", pid)
				}
				return err
			})
		})
	}
	if err != nil {
		log.Error("no successor, this process serves on", "error", err)
	}
	return err == nil
}

// notify tells systemd, if it is there and wants to know, what the gateway does
// (sd_notify(3)). Nothing depends on its listening.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// monotonic is what systemd wants to know of the moment of a reload.
func monotonic() string {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return "MONOTONIC_USEC=" + strconv.FormatInt(t.Nano()/1000, 10)
}

// problems prints the mistakes of a configuration, one a line, and returns
// what remains to be said.
func problems(err error) error {
	if list, ok := err.(config.Problems); ok {
		for _, p := range list {
			fmt.Fprintln(os.Stderr, p)
		}
		return errSilent
	}
	return err
}
