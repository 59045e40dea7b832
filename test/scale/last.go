package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
)

// agentStart measures the agent of the last host, on the datapath of the kernel: how soon after it was started all its ports are open, of several starts on
// a host that knows nothing yet, and how much memory it then holds, all that its VMs' packets need included.
func (o *options) agentStart(ctx context.Context, s *serverProcess, c *cloud) error {
	var took []float64
	note := func(ready time.Duration) {
		took = append(took, milliseconds(ready))
		say("ready after %v", ready.Round(time.Millisecond))
	}
	for range o.starts - 1 {
		if err := o.withAgent(ctx, s, func(_ *exec.Cmd, _ string, ready time.Duration) error {
			note(ready)
			return nil
		}); err != nil {
			return err
		}
		select { // the others hear that it has ended, and its programs and maps go
		case <-time.After(o.pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return o.withAgent(ctx, s, func(cmd *exec.Cmd, run string, ready time.Duration) error {
		note(ready)
		o.emit("agent_ready_ms", quantile(took, 0.5), "ms")
		o.emit("agent_ready_worst_ms", slices.Max(took), "ms")
		if err := c.sendAll(); err != nil {
			return err
		}
		if err := o.rebind(ctx, c, run); err != nil {
			return err
		}
		select {
		case <-time.After(o.settle):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for field, name := range map[string]string{"VmRSS": "agent_rss_mb", "VmHWM": "agent_rss_peak_mb"} {
			n, err := resident(cmd.Process.Pid, field)
			if err != nil {
				return err
			}
			o.emit(name, n, "MB")
		}
		return nil
	})
}

// rebind measures what a hypervisor waits for: until a port is unbound, which is the agent's first transaction, and until it is bound again and open.
func (o *options) rebind(ctx context.Context, c *cloud, run string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	agent, v := debug.NewClient(filepath.Join(run, "agent.sock")), c.vms[c.byHost[c.hosts][0]]
	await := func(open bool) error {
		for {
			ports, err := agent.Ports(ctx)
			if err != nil {
				return fmt.Errorf("%s is not as wanted (open: %v): %w", v.iface, open, err)
			}
			if open == slices.ContainsFunc(ports, func(p debug.Port) bool { return p.Interface == v.iface && p.Status == debug.StatusUp }) {
				return nil
			}
			time.Sleep(time.Millisecond)
		}
	}
	began := time.Now()
	if _, err := agent.Unbind(ctx, v.id.String()); err != nil {
		return err
	}
	o.emit("agent_unbind_ms", milliseconds(time.Since(began)), "ms")
	if err := await(false); err != nil {
		return err
	}
	began = time.Now()
	if err := agent.Bind(ctx, v.id.String(), v.iface); err != nil {
		return err
	}
	if err := await(true); err != nil {
		return err
	}
	o.emit("agent_bind_ms", milliseconds(time.Since(began)), "ms")
	return nil
}

// withAgent calls f with the agent of the last host and its run directory, as soon as all its ports are open, and how long that took. Afterwards the host is as it
// was before.
func (o *options) withAgent(ctx context.Context, s *serverProcess, f func(cmd *exec.Cmd, run string, ready time.Duration) error) (err error) {
	run, err := os.MkdirTemp(o.dir, lastHost)
	if err != nil {
		return err
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(run, "notify")})
	if err != nil {
		return err
	}
	defer notify.Close()
	log, err := os.Create(filepath.Join(run, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	const name = "scale"
	cmd := exec.Command(o.binary, "agent", "--host", lastHost, "--etcd", s.etcd, "--run-dir", run, "--state-dir", filepath.Join(run, "state"),
		"--name", name, "--tunnel-device", tunnelDevice)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.LocalAddr().String())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if e := cmd.Wait(); e != nil {
			err = errors.Join(err, e)
		}
		if err != nil {
			text, _ := os.ReadFile(log.Name())
			err = fmt.Errorf("%w; its log:\n%s", err, text[max(0, len(text)-2000):])
			return
		}
		if out, e := exec.Command(o.binary, "agent", "--cleanup", "--name", name, "--run-dir", run).CombinedOutput(); e != nil {
			err = fmt.Errorf("agent --cleanup: %w: %s", e, out)
		}
	}()
	if err := awaitReady(notify); err != nil {
		return err
	}
	took := time.Since(began)
	ports, err := debug.NewClient(filepath.Join(run, "agent.sock")).Ports(ctx)
	if err != nil {
		return err
	}
	up := 0
	for _, p := range ports {
		if p.Status == debug.StatusUp && p.Interface != tunnelDevice {
			up++
		}
	}
	if up != o.hosted {
		return fmt.Errorf("ready, and %d of %d ports are open", up, o.hosted)
	}
	return f(cmd, run, took)
}

// awaitReady waits until the service manager, which we are, is told that the agent serves.
func awaitReady(c *net.UnixConn) error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			return fmt.Errorf("the agent is not ready: %w", err)
		}
		if text := string(b[:n]); strings.Contains(text, "READY=1") && strings.Contains(text, "serving") {
			return nil
		}
	}
}

// sendAll has each VM of the last host send a packet.
func (c *cloud) sendAll() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, i := range c.byHost[c.hosts] {
		v := &c.vms[i]
		link, err := net.InterfaceByName(far(v.iface))
		if err != nil {
			return err
		}
		if err := unix.Sendto(fd, c.frame(v), 0, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
			return fmt.Errorf("%s: %w", link.Name, err)
		}
	}
	return nil
}
