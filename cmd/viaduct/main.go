// Command viaduct is all of Viaduct: the server, the agent, and what is said to them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/viaduct-net/viaduct/internal/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(ctl.Run(ctx, ctl.New(), os.Args[1:]))
}
