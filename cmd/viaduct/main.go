// Command viaduct is all of Viaduct: the server, the agent, and what is said to them.
package main

//go:generate go test -count=1 -run TestManPages . -update-man

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/ctl"
	"github.com/viaduct-net/viaduct/internal/ctl/confctl"
	"github.com/viaduct-net/viaduct/internal/ctl/hostctl"
	"github.com/viaduct-net/viaduct/internal/ctl/mmctl"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if filepath.Base(os.Args[0]) == mmctl.Name { // a link to this program
		os.Exit(mmctl.Run(ctx, hostctl.Socket(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(ctl.Run(ctx, command(), os.Args[1:]))
}

// command is the whole tree.
func command() *cobra.Command {
	return ctl.New(append(hostctl.Commands(), confctl.Command(), lab.Command(), demo.Command())...)
}
