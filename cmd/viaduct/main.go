// Command viaduct is all of Viaduct: the server, the agent, and what is said to them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/viaduct-net/viaduct/internal/ctl"
	"github.com/viaduct-net/viaduct/internal/ctl/hostctl"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	commands := append(hostctl.Commands(), lab.Command(), demo.Command())
	os.Exit(ctl.Run(ctx, ctl.New(commands...), os.Args[1:]))
}
