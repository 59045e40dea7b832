package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// process is a daemon that this process started. It outlives us.
type process struct {
	name string
	log  string
	pid  int
	done chan struct{} // closed when it has ended
}

// start starts a daemon of the laboratory in a namespace, its output to log, in a session
// of its own so that an interrupt at the terminal does not reach it.
func (l *Lab) start(name string, s ns.Space, log string, args ...string) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(l.Binary, args...)
	cmd.Dir = l.dir
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := s.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: log, pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // only so that it does not stay a zombie while we live
		close(p.done)
	}()
	return p, nil
}

// await asks until ready says yes, the process ends, or ctx does. What it says last is in the error, with the end of the log.
func (p *process) await(ctx context.Context, what string, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.failed(errors.New("ended"))
		case <-ctx.Done():
			return p.failed(fmt.Errorf("%s: %w: %w", what, ctx.Err(), err))
		case <-tick.C:
		}
	}
}

func (p *process) failed(err error) error {
	const tail = 2000
	b, e := os.ReadFile(p.log)
	if e != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return fmt.Errorf("%s: %w; the end of its log:\n%s", p.name, err, bytes.TrimSpace(b[max(0, len(b)-tail):]))
}
