// Command conntrackgo keeps the connection-tracking tables of a firewall pair
// in step. It is a drop-in replacement for conntrackd: daemon and client in
// one binary, with the same configuration file and the same options.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
	"github.com/conntrackgo/conntrackgo/pkg/ctl"
	"github.com/conntrackgo/conntrackgo/pkg/daemon"
)

// version names the conntrackd whose behaviour this is; build is ours, set by
// the linker.
var (
	version = "1.4.7"
	build   = "unknown"
)

func main() {
	log := daemon.NewLogger(os.Stdout, os.Stderr)
	if err := run(log); err != nil {
		log.Error(err)
		os.Exit(1)
	}
}

func run(log *logrus.Logger) error {
	rows := daemon.Requests()
	cmd, err := ctl.ParseArgs(os.Args[1:], rows)
	var usage *ctl.UsageError
	if errors.As(err, &usage) && usage.ShowUsage {
		fmt.Print(ctl.UsageText(os.Args[0], version, rows))
	}
	if err != nil {
		return err
	}
	for _, w := range cmd.Warnings {
		log.Warn(w)
	}
	switch cmd.Kind {
	case ctl.Usage:
		fmt.Print(ctl.UsageText(os.Args[0], version, rows))
		return nil
	case ctl.Version:
		fmt.Print(ctl.VersionText(version, build))
		return nil
	}

	syscall.Umask(0o177)
	cfg, err := load(log, cmd)
	if err != nil {
		return err
	}
	switch {
	case cmd.Kind == ctl.Client:
		return cmd.Call(cfg.Socket, os.Stdout)
	case cmd.Kind == ctl.Daemon && !daemon.IsBackground():
		return daemon.Background(cfg)
	}
	cfg.Node.Software = "conntrackgo " + build
	return daemon.Run(context.Background(), cfg, log)
}

func load(log *logrus.Logger, cmd ctl.Command) (*confparse.Config, error) {
	cfg, warnings, err := confparse.Load(cmd.ConfigFile)
	if daemon.IsBackground() {
		warnings = nil // its parent has said them
	}
	for _, w := range warnings {
		if !w.AtStart || cmd.Kind != ctl.Client {
			log.Warn(w)
		}
	}
	return cfg, err
}
