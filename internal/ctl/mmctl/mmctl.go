// Package mmctl is the command mm-ctl, by which libvirt and Nova bind a VM's interface to its virtual port
// (interface type midonet): the forms, and the meaning of the exit codes, are those that they know.
package mmctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
)

// Name is what the program is called when it is this command.
const Name = "mm-ctl"

// Exit codes.
const (
	Success    = 0
	BadCommand = 1   // arguments that make no sense
	StateError = 3   // the network is not so: no such port, the store is away
	Denied     = 13  // not root
	Failed     = 255 // anything else, the agent does not run for one
)

const usage = `usage: mm-ctl --bind-port PORT INTERFACE    attach the virtual port of this id to an interface of this host;
                                            another host that has it lets go
       mm-ctl --unbind-port PORT            take it off again

Tells the local agent, on its socket (VIADUCT_SOCKET: another one). What is so already is no error.
Exit codes: 0 done, 1 bad arguments, 3 no such port or store away, 13 not root, 255 failed.
`

// timeout leaves the agent time to say that its store does not answer.
const timeout = 15 * time.Second

// Run executes the command and returns its exit code.
func Run(ctx context.Context, socket string, args []string, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := run(ctx, debug.NewClient(socket), args, stdout, stderr)
	if err == nil {
		return Success
	}
	fmt.Fprintf(stderr, "%s: %v\n", Name, err)
	return code(err)
}

var errUsage = errors.New("bad arguments: see mm-ctl --help")

func run(ctx context.Context, agent *debug.Client, args []string, stdout, stderr io.Writer) error {
	form := ""
	if len(args) > 0 {
		form = args[0]
	}
	switch {
	case form == "--help" || form == "-h":
		_, err := io.WriteString(stdout, usage)
		return err
	case form == "--bind-port" && len(args) == 3:
		port, err := parsePort(args[1])
		if err != nil {
			return err
		}
		if err := agent.Bind(ctx, port, args[2]); err != nil {
			return fmt.Errorf("bind port %s to interface %s: %w%s", port, args[2], err, fix(err))
		}
		return nil
	case form == "--unbind-port" && len(args) == 2:
		port, err := parsePort(args[1])
		if err != nil {
			return err
		}
		done, err := agent.Unbind(ctx, port)
		if err != nil {
			return fmt.Errorf("unbind port %s: %w%s", port, err, fix(err))
		}
		if !done {
			fmt.Fprintf(stderr, "%s: port %s was not bound on this host\n", Name, port)
		}
		return nil
	}
	return errUsage
}

func parsePort(s string) (string, error) {
	id, err := uuid.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%w: %q is no UUID of a port", errUsage, s)
	}
	return id.String(), nil
}

func code(err error) int {
	switch {
	case errors.Is(err, errUsage), errors.Is(err, debug.ErrInvalid):
		return BadCommand
	case errors.Is(err, debug.ErrNotFound), errors.Is(err, debug.ErrConflict), errors.Is(err, debug.ErrUnavailable):
		return StateError
	case errors.Is(err, os.ErrPermission):
		return Denied
	}
	return Failed
}

// fix says what to do next.
func fix(err error) string {
	switch {
	case errors.Is(err, debug.ErrNotFound):
		return " (`viaduct get port` lists those that there are)"
	case errors.Is(err, debug.ErrConflict):
		return " (somebody else changes the same: try again)"
	case errors.Is(err, os.ErrPermission):
		return " (the agent's socket is for root)"
	}
	return ""
}
