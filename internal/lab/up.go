package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Options of Up.
type Options struct {
	Name      string        // "": the file's, or DefaultName
	Binary    string        // path of viaduct; "": this program
	AgentArgs []string      // further arguments of every agent
	Conf      []string      // KEY=VALUE: configuration of all hosts (viaduct conf), from before their agents start
	Timeout   time.Duration // for all of it; 0: one minute
	Progress  io.Writer     // a line for each step; nil: none
}

// Up makes the laboratory that the file describes, and returns when every VM that is plugged in has
// its port up. When it fails, or ctx ends, nothing is left. The set gains the hosts that it
// names and does not describe.
func Up(ctx context.Context, o Options, set *document.Set) (*Lab, error) {
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		o.Binary = self
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a laboratory is made of network namespaces and needs root")
	}
	l, err := plan(ctx, Root, o.Name, o.Binary, set)
	if err != nil {
		return nil, err
	}
	l.AgentArgs = o.AgentArgs
	if err := l.claim(); err != nil {
		return nil, err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return nil, errors.Join(err, l.Down())
	}
	defer unlock()
	fmt.Fprintf(o.Progress, "laboratory %s\n", l.Name)
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := l.build(ctx, o, set); err != nil {
		fmt.Fprintf(o.Progress, "failed, taking laboratory %s down again\n", l.Name)
		return nil, errors.Join(err, l.Down())
	}
	return l, nil
}

// claim takes the name and writes down what will be made.
func (l *Lab) claim() error {
	unlock, err := lockMachine()
	if err != nil {
		return err
	}
	defer unlock()
	exists := fmt.Errorf("laboratory %s: %w: take it down with `viaduct lab down --name %s`", l.Name, fs.ErrExist, l.Name)
	if _, err := os.Stat(l.dir); err == nil {
		return exists
	}
	for _, s := range l.spaces() {
		if s.Exists() {
			return fmt.Errorf("network namespace %s: %w: it belongs to somebody else", s, fs.ErrExist)
		}
	}
	for _, h := range l.Hosts {
		if _, err := os.Stat(h.Pins); err == nil {
			return fmt.Errorf("%s: %w: an agent of this name has left it: `viaduct agent --cleanup`", h.Pins, fs.ErrExist)
		}
	}
	for _, d := range []string{filepath.Dir(filepath.Dir(l.dir)), filepath.Dir(l.dir), pinRoot} {
		if _, err := os.Stat(d); errors.Is(err, fs.ErrNotExist) {
			l.Made = append(l.Made, d)
		}
	}
	if err := os.MkdirAll(filepath.Dir(l.dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return err
	}
	if err := l.settle(); err != nil {
		return errors.Join(err, os.RemoveAll(l.dir))
	}
	return nil
}

// settle writes the manifest, and mounts bpffs if nobody has.
func (l *Lab) settle() error {
	mounted, err := bpffsMounted()
	if err != nil {
		return err
	}
	l.Mounted = !mounted
	if err := l.save(); err != nil || mounted {
		return err
	}
	return mountBPFFS()
}

// build makes what was written down.
func (l *Lab) build(ctx context.Context, o Options, set *document.Set) error {
	for _, s := range l.spaces() {
		if err := s.Create(); err != nil {
			return err
		}
	}
	for _, h := range l.Hosts {
		if err := plug.Host(h.Space); err != nil {
			return err
		}
	}
	if err := l.wire(); err != nil {
		return err
	}
	if err := l.certify(); err != nil {
		return err
	}
	fmt.Fprintf(o.Progress, "server\n")
	if err := l.StartServer(ctx); err != nil {
		return err
	}
	fmt.Fprintf(o.Progress, "virtual network\n")
	if err := l.apply(ctx, set); err != nil {
		return err
	}
	if len(o.Conf) > 0 {
		if _, err := l.Configure(ctx, o.Conf...); err != nil {
			return err
		}
	}
	for i := range l.VMs {
		vm := &l.VMs[i]
		if err := plug.VM(vm.Space); err != nil {
			return err
		}
		if vm.Plugged {
			fmt.Fprintf(o.Progress, "VM %s\n", vm.Name)
			if err := l.plug(vm); err != nil {
				return err
			}
		}
	}
	for i := range l.Hosts {
		fmt.Fprintf(o.Progress, "agent of host %s\n", l.Hosts[i].Name)
		if err := l.StartAgent(ctx, &l.Hosts[i]); err != nil {
			return err
		}
	}
	return l.save()
}

// StartServer starts the server, also after it was killed, and returns when it answers from its store.
func (l *Lab) StartServer(ctx context.Context) error {
	var ready func(context.Context) error
	err := l.change(ctx, func() (err error) {
		ready, err = l.launchServer()
		return err
	})
	if err != nil {
		return err
	}
	return ready(ctx)
}

// launchServer starts the server; ready waits until it answers from its store.
func (l *Lab) launchServer() (ready func(context.Context) error, err error) {
	s := &l.Server
	args := append([]string{"server", "--config", os.DevNull, "--data-dir", s.Data, "--listen", "unix://" + s.Socket, "--etcd-listen", s.Etcd}, l.storeFlags(Store)...)
	p, err := l.start("server", s.Space, s.Log, args...)
	if err != nil {
		return nil, err
	}
	s.PID = p.pid
	l.alive(Store)
	if err := l.save(); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return p.await(ctx, "not ready", s.ready) }, nil
}

// ready is nil when the server answers from its store.
func (s *Server) ready(ctx context.Context) error {
	c, err := client.New("unix://" + s.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	_, _, err = c.List(ctx, model.KindHost)
	return err
}

func (l *Lab) apply(ctx context.Context, set *document.Set) error {
	c, err := client.New("unix://" + l.Server.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = set.Apply(ctx, c)
	return err
}

// Configure sets values of all hosts, as `viaduct conf set KEY=VALUE...` does, and returns the store's revision that has them.
func (l *Lab) Configure(ctx context.Context, values ...string) (revision int64, err error) {
	set := make(map[string]any, len(values))
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if !ok {
			return 0, fmt.Errorf("configuration %q: want KEY=VALUE", v)
		}
		set[key] = value
	}
	c, err := client.New("unix://" + l.Server.Socket)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	r, err := c.ConfChange(ctx, wire.ConfChange{Template: conf.DefaultTemplate, Set: set})
	return r.Revision, err
}

// agentPatience is for how long an agent may take to serve its host.
const agentPatience = time.Minute

// StartAgent starts a host's agent, also after it was killed, and returns when it is ready and the ports
// of all plugged VMs are up, or fails after agentPatience, with the end of the agent's log.
func (l *Lab) StartAgent(ctx context.Context, h *Host) error {
	ready, err := l.LaunchAgent(h)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	return ready(ctx)
}

// LaunchAgent starts a host's agent; ready waits until it is ready and the ports of all plugged VMs are up.
func (l *Lab) LaunchAgent(h *Host) (ready func(context.Context) error, err error) {
	err = l.change(context.Background(), func() (err error) {
		ready, err = l.launchAgent(h)
		return err
	})
	return ready, err
}

func (l *Lab) launchAgent(h *Host) (ready func(context.Context) error, err error) {
	args := append([]string{"agent", "--config", os.DevNull, "--host", h.Name, "--etcd", l.Server.Etcd, "--run-dir", h.RunDir, "--state-dir", filepath.Join(h.RunDir, "state"), "--name", instance(l.Name, h.Name)},
		slices.Concat(l.storeFlags(h.Name), l.AgentArgs)...)
	p, err := l.start("agent of host "+h.Name, h.Space, h.Log, args...)
	if err != nil {
		return nil, err
	}
	h.PID = p.pid
	l.alive(h.Name)
	if err := l.save(); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		agent := debug.NewClient(h.Socket())
		if err := p.await(ctx, "not ready", agent.Ready); err != nil {
			return err
		}
		return p.await(ctx, "ports are not up", func(ctx context.Context) error { return l.portsUp(ctx, h, agent) })
	}, nil
}

// portsUp is nil when the ports of all VMs that are plugged into the host are up.
func (l *Lab) portsUp(ctx context.Context, h *Host, agent *debug.Client) error {
	ports, err := agent.Ports(ctx)
	if err != nil {
		return err
	}
	up := map[string]bool{}
	for _, p := range ports {
		up[p.Interface] = p.Status == debug.StatusUp
	}
	for _, vm := range l.VMs {
		if vm.Host == h.Name && vm.Plugged && !up[vm.Interface] {
			return fmt.Errorf("port %s on interface %s is not up", vm.Port, vm.Interface)
		}
	}
	return nil
}

// Plug plugs a VM in that is not.
func (l *Lab) Plug(vm *VM) error {
	return l.change(context.Background(), func() error {
		if vm.Plugged {
			return fmt.Errorf("VM %s is plugged in already", vm.Name)
		}
		if err := l.plug(vm); err != nil {
			return err
		}
		vm.Plugged = true
		return l.save()
	})
}

// Unplug takes a VM's interface away.
func (l *Lab) Unplug(vm *VM) error {
	return l.change(context.Background(), func() error {
		host, err := l.Host(vm.Host)
		if err != nil {
			return err
		}
		if !vm.Plugged {
			return fmt.Errorf("VM %s is not plugged in", vm.Name)
		}
		if err := plug.Unplug(host.Space, vm.Interface); err != nil {
			return err
		}
		vm.Plugged = false
		return l.save()
	})
}

func (l *Lab) plug(vm *VM) error {
	host, err := l.Host(vm.Host)
	if err != nil {
		return err
	}
	if vm.Device == Veth {
		err = plug.Veth(host.Space, vm.Interface, vm.Space, vm.NIC)
	} else if err = plug.Tap(host.Space, vm.Interface, vm.Space, vm.NIC); err == nil {
		var p *process
		p, err = l.start("tap of VM "+vm.Name, vm.Space, filepath.Join(l.dir, "vms", vm.Name, "log"), "lab", "tool", "tap",
			"--host-space", string(host.Space), "--host-interface", vm.Interface, "--vm-space", string(vm.Space), "--vm-interface", vm.NIC.Name)
		if err == nil {
			vm.PID = p.pid
		}
	}
	if err != nil {
		return fmt.Errorf("VM %s: %w", vm.Name, err)
	}
	return nil
}
