package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/viaduct-net/viaduct/internal/agent"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// agents are those of the hosts of many.
type agents struct {
	hosts []*host
	end   context.CancelFunc
	group *errgroup.Group

	mu     sync.Mutex
	asked  func(*view.Snapshot) bool // nil: nothing
	has    map[int]time.Time         // hosts whose workers have been handed a network of which asked holds
	wanted map[int]bool              // hosts that all is over for when they have
	done   chan struct{}             // closed then
}

// host is one of them.
type host struct {
	index int
	dp    *fake.Datapath
	last  atomic.Pointer[view.Snapshot]
}

// startAgents starts them, some at a time, and has each VM send a packet to another bridge, so that each agent knows what it needs to know of the
// network, and more of it would have no meaning for its VMs.
func (o *options) startAgents(ctx context.Context, s *serverProcess, c *cloud) (_ *agents, err error) {
	const atOnce = 8
	began := time.Now()
	ctx, end := context.WithCancel(ctx)
	a := &agents{end: end}
	a.group, ctx = errgroup.WithContext(ctx)
	turn := make(chan struct{}, atOnce)
	var ready sync.WaitGroup
	for i := range o.hosts {
		h := &host{index: i, dp: fake.New(clock.NewSystem(), 1)}
		h.dp.OnSend(a.carry)
		h.dp.AddInterface(tunnelDevice, 65485)
		for _, v := range c.byHost[i] {
			h.dp.AddInterface(c.vms[v].iface, 1500)
		}
		a.hosts = append(a.hosts, h)
	}
	for _, h := range a.hosts {
		ready.Add(1)
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), a.stop())
		}
		a.group.Go(func() error {
			return a.run(ctx, o, s.etcd, c, h, sync.OnceFunc(func() { ready.Done(); <-turn }))
		})
	}
	all := make(chan struct{})
	go func() { ready.Wait(); close(all) }()
	select {
	case <-all:
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), a.stop())
	}
	o.emit("agents_start_s", time.Since(began).Seconds(), "s")
	for _, h := range a.hosts {
		if err := a.talk(ctx, c, h); err != nil {
			return nil, errors.Join(err, a.stop())
		}
	}
	return a, nil
}

// carry takes what a host sends through a tunnel to the other host. The last one is not reached, and VMs do not answer.
func (a *agents) carry(f fake.Sent) {
	if !f.Tunnel {
		return
	}
	if h := hostAt(f.Peer.Netip()); h < len(a.hosts) {
		_ = a.hosts[h].dp.Inject(tunnelDevice, fake.Packet{Frame: f.Frame, TunKey: f.Key}) // it is there
	}
}

// run is one agent's life.
func (a *agents) run(ctx context.Context, o *options, endpoint string, c *cloud, h *host, ready func()) error {
	name := c.hostName(h.index)
	st, err := etcd.Open(etcd.Config{Endpoints: []string{endpoint}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer st.Close()
	dir := filepath.Join(o.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	err = agent.Run(ctx, agent.Config{
		Open:  func(*conf.Settings) (datapath.Datapath, error) { return h.dp, nil },
		Store: st, Bundles: st, Keys: st, Shared: st, Host: name, RunDir: dir, TunnelDevice: tunnelDevice, Log: logs.Discard(),
		Told:  func(ch mirror.Change) { a.told(h, ch.Snapshot) },
		Ready: ready,
	})
	if err != nil {
		return fmt.Errorf("agent of %s: %w", name, err)
	}
	return nil
}

// told notes when an agent has what is waited for. It is called on the agents' goroutines.
func (a *agents) told(h *host, s *view.Snapshot) {
	h.last.Store(s)
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, has := a.has[h.index]; has || a.asked == nil || !a.wanted[h.index] || !a.asked(s) {
		return
	}
	a.has[h.index] = time.Now()
	if len(a.has) == len(a.wanted) {
		close(a.done)
	}
}

// expect begins to wait until ok holds of what the wanted agents have.
func (a *agents) expect(wanted map[int]bool, ok func(*view.Snapshot) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked, a.has, a.wanted, a.done = ok, make(map[int]time.Time), wanted, make(chan struct{})
}

// patience is how long a change may take before something must be wrong.
const patience = time.Minute

// await says when the last of them had it.
func (a *agents) await(ctx context.Context) (last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-a.done:
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = nil
	if len(a.has) < len(a.wanted) {
		return last, fmt.Errorf("%d of %d agents have it: %w", len(a.has), len(a.wanted), context.Cause(ctx))
	}
	for _, t := range a.has {
		if t.After(last) {
			last = t
		}
	}
	return last, nil
}

// talk has each VM of a host send a packet to a VM of the next bridge of its network, and waits until all that it takes is known.
func (a *agents) talk(ctx context.Context, c *cloud, h *host) error {
	for end := time.Now().Add(patience); ; {
		for _, v := range c.byHost[h.index] {
			x := &c.vms[v]
			if err := h.dp.Inject(x.iface, fake.Packet{Frame: c.frame(x)}); err != nil {
				return err
			}
		}
		if s := h.last.Load(); s != nil && c.knows(h.index, s) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the agent of %s does not know what its VMs need", c.hostName(h.index))
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// frame is a UDP packet of a VM to one of the next bridge of its network.
func (c *cloud) frame(v *vm) []byte {
	x := &c.networks[v.network]
	next := (v.bridge + 1) % len(x.bridges)
	to := v.addr.As4()
	to[1] = byte(next)
	dst := match.AddrFrom(netip.AddrFrom4(to))
	return packet.BuildUDP(nil, packet.Ether{Dst: x.gateway[v.bridge], Src: v.mac},
		packet.IP{Src: match.AddrFrom(v.addr), Dst: dst}, 1000, 2000, []byte("scale"))
}

// knows reports whether a snapshot has all that the VMs of a host and their first packets are concerned by.
func (c *cloud) knows(host int, s *view.Snapshot) bool {
	if s.Chain(c.platform) == nil {
		return false
	}
	for _, v := range c.byHost[host] {
		x := &c.networks[c.vms[v].network]
		if s.Port(c.vms[v].id) == nil || s.Bridge(x.bridges[c.vms[v].bridge]) == nil || s.Router(x.router) == nil || s.SecurityGroup(x.group) == nil {
			return false
		}
	}
	return true
}

// stop ends them.
func (a *agents) stop() error {
	a.end()
	if err := a.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// idleFor is for how long nobody does anything while it is measured what that costs.
const idleFor = 5 * time.Second

// idle says what the processes hold, and what they use of a CPU when nothing happens in the cloud.
func (o *options) idle(ctx context.Context, s *serverProcess) error {
	self, server := os.Getpid(), s.cmd.Process.Pid
	before, err := cpuTimes(self, server)
	if err != nil {
		return err
	}
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after, err := cpuTimes(self, server)
	if err != nil {
		return err
	}
	percent := func(i int) float64 { return 100 * (after[i] - before[i]).Seconds() / idleFor.Seconds() }
	o.emit("agents_idle_each_cpu", percent(0)/float64(o.hosts), "%")
	o.emit("server_idle_cpu", percent(1), "%")
	if n, err := resident(os.Getpid(), "VmRSS"); err == nil {
		o.emit("agents_rss_each_mb", n/float64(o.hosts), "MB")
	}
	if n, err := resident(s.cmd.Process.Pid, "VmRSS"); err == nil {
		o.emit("server_rss_mb", n, "MB")
	}
	return nil
}

// cpuTimes are what processes have used of CPUs so far.
func cpuTimes(pids ...int) (ts []time.Duration, err error) {
	const tick = time.Second / 100 // USER_HZ, for all architectures that matter
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return nil, err
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from the third field of proc(5) on
		user, err := strconv.Atoi(f[11])
		system, err2 := strconv.Atoi(f[12])
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		ts = append(ts, time.Duration(user+system)*tick)
	}
	return ts, nil
}

// resident reads a field of a process's status, in MB.
func resident(pid int, field string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if text, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("process %d: no %s", pid, field)
}
