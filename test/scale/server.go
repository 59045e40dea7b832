package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/server"
)

// The tunnel device that all agents of the namespace take for theirs, with what they would give it.
const (
	tunnelDevice = "scale-vxlan"
	tunnelPort   = 4789
)

// plug makes the interfaces that agents find. Hosts on datapaths in memory only ask whether they are there: they share theirs.
func (o *options) plug() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return err
	}
	c := o.plan()
	most := 0
	for _, vms := range c.byHost[:o.hosts] {
		most = max(most, len(vms))
	}
	for i := range most {
		if err := pair(fmt.Sprintf("vm%d", i)); err != nil {
			return err
		}
	}
	for i := range o.hosted {
		if err := pair(fmt.Sprintf("last%d", i)); err != nil {
			return err
		}
	}
	return netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: tunnelDevice}, FlowBased: true, Port: tunnelPort})
}

// far is the name of the VM's end of an interface.
func far(iface string) string { return iface + "-far" }

func pair(name string) error {
	l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: far(name)}
	if err := netlink.LinkAdd(l); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, end := range []string{name, far(name)} {
		x, err := netlink.LinkByName(end)
		if err == nil {
			err = netlink.LinkSetUp(x)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", end, err)
		}
	}
	return nil
}

// serve is what the server's process does, until it is told to end.
func serve(ctx context.Context, profiles string) error {
	stop, err := profile(profiles, asServer)
	if err != nil {
		return err
	}
	defer stop()
	return server.Run(ctx, server.Config{
		Listen: []string{"127.0.0.1:0"}, DataDir: filepath.Join(os.TempDir(), "server"), EtcdListen: "http://127.0.0.1:0",
		Log:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Ready: func(a server.Addresses) { _ = json.NewEncoder(os.Stdout).Encode(a) },
	})
}

// profile writes a CPU profile from now on, and a heap profile at the end.
func profile(dir, name string) (stop func(), err error) {
	if dir == "" {
		return func() {}, nil
	}
	cpu, err := os.Create(filepath.Join(dir, name+".cpu"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		cpu.Close()
		if err := writeHeap(filepath.Join(dir, name+".heap")); err != nil {
			say("heap profile: %v", err)
		}
	}, nil
}

func writeHeap(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	runtime.GC()
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

// serverProcess is the server.
type serverProcess struct {
	cmd  *exec.Cmd
	etcd string
	api  *client.Client
}

func (o *options) startServer(ctx context.Context) (*serverProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &serverProcess{cmd: exec.Command(self, "-profiles", o.profiles)}
	s.cmd.Env = append(os.Environ(), inside+"="+asServer)
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	var at server.Addresses
	if err = json.NewDecoder(out).Decode(&at); err == nil {
		s.etcd = at.Etcd[0]
		s.api, err = client.New(at.API[0])
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("server: %w", err), s.stop())
	}
	return s, nil
}

// stop ends it. Its data is of no further use.
func (s *serverProcess) stop() error {
	if s.api != nil {
		s.api.Close()
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	impatient := time.AfterFunc(20*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer impatient.Stop()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}
