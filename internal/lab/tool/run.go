package tool

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// Runner runs tools in namespaces as processes.
type Runner struct {
	// Command is the program with the arguments that lead to Command(): viaduct lab tool.
	Command []string
}

// Process is a running tool. Not safe for concurrent use.
type Process struct {
	cmd    *exec.Cmd
	out    *bufio.Scanner
	stderr bytes.Buffer
	last   []byte
	args   string
}

// Start starts a tool in the namespace. It ends with ctx at the latest: asked first, killed after five seconds. The caller must call
// Wait or Stop.
func (r Runner) Start(ctx context.Context, s ns.Space, args ...string) (*Process, error) {
	all := append(append([]string(nil), r.Command...), args...)
	p := &Process{cmd: exec.CommandContext(ctx, all[0], all[1:]...), args: strings.Join(args, " ")}
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(unix.SIGTERM) }
	p.cmd.WaitDelay = 5 * time.Second
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.Start(p.cmd); err != nil {
		return nil, fmt.Errorf("tool %s: %w", p.args, err)
	}
	p.out = bufio.NewScanner(out)
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// StartReady is Start for responders: it returns when the tool listens.
func (r Runner) StartReady(ctx context.Context, s ns.Space, args ...string) (*Process, error) {
	p, err := r.Start(ctx, s, args...)
	if err != nil {
		return nil, err
	}
	var ready Ready
	if err := p.Next(&ready); err != nil {
		return nil, errors.Join(err, p.Wait(nil))
	}
	return p, nil
}

// Run runs a tool to its end and decodes the last line that it printed.
func (r Runner) Run(ctx context.Context, s ns.Space, result any, args ...string) error {
	p, err := r.Start(ctx, s, args...)
	if err != nil {
		return err
	}
	return p.Wait(result)
}

// Next decodes the next line. io.EOF: there is none, the tool has ended.
func (p *Process) Next(v any) error {
	if !p.out.Scan() {
		if err := p.out.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	p.last = append(p.last[:0], p.out.Bytes()...)
	return json.Unmarshal(p.last, v)
}

// Wait waits for the end and decodes the last line into result, unless that is nil.
func (p *Process) Wait(result any) error {
	for p.out.Scan() {
		p.last = append(p.last[:0], p.out.Bytes()...)
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("tool %s: %w: %s", p.args, err, bytes.TrimSpace(p.stderr.Bytes()))
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(p.last, result); err != nil {
		return fmt.Errorf("tool %s printed %q: %w", p.args, p.last, err)
	}
	return nil
}

// Stop asks the tool to end and then is Wait.
func (p *Process) Stop(result any) error {
	p.Interrupt()
	return p.Wait(result)
}

// Interrupt asks the tool to end. It takes back its niceness first: beside others that take all there is of the CPUs, one
// that is nice would hear of it late.
func (p *Process) Interrupt() {
	pid := p.cmd.Process.Pid
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // it may have ended already: Wait tells, here and below
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, tid, 0)
		}
	}
	_ = p.cmd.Process.Signal(unix.SIGTERM)
}
