package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/worker"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/arp"
	"github.com/viaduct-net/viaduct/internal/topo/binding"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/disk"
)

// tunnelDevice is the interface of each host by which it reaches the others.
const tunnelDevice = "vxlan"

// host is a machine: its datapath lives on when its agent is killed.
type host struct {
	s        *Sim
	name     string
	id       uuid.UUID
	tunnel   match.Addr // where others reach it
	dp       *dp
	settings *conf.Settings
	links    []binding.Link
	lastLink int

	client *client
	agent  *agent.Steps // nil: killed
	tables []*state.Tables
	idle   time.Duration // between two looks at what time has made due
	slow   time.Duration // how much longer everything takes

	awake    bool   // a turn is due
	revision int64  // of the network by which packets are decided here, the oldest
	said     string // last

	kept *disk.Snapshot // by the agent, or an earlier one

	taken map[uuid.UUID]int64 // ports that others were given while this host was dead, and at which revision
}

// dp is a fake datapath that tells when somebody has something for a worker.
type dp struct {
	*fake.Datapath
	h *host
}

// Wake implements datapath.Datapath.
func (d *dp) Wake(int) { d.h.wake() }

func (s *Sim) newHost(name string, tunnel match.Addr, settings *conf.Settings) *host {
	h := &host{s: s, name: name, id: id(name), tunnel: tunnel, settings: settings, idle: 50 * time.Millisecond, taken: map[uuid.UUID]int64{}}
	h.dp = &dp{fake.New(s.clock, max(settings.Workers, 1)), h}
	h.dp.AddInterface(tunnelDevice, 1550)
	h.dp.OnSend(h.sent)
	s.hosts = append(s.hosts, h)
	return h
}

// start begins an agent on what an earlier one has left.
func (h *host) start() {
	s := h.s
	h.client = s.store.client(h.name, h.wake)
	h.dp.Reopen()
	dir := filepath.Join(s.dir, h.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		panic(err)
	}
	kept := h.kept
	switch {
	case h.client.reachable() == nil && kept != nil: // of blocks the machine's clock says how long they are good: not long enough to matter in an outage
		k := *kept
		k.Blocks, kept = nil, &k
	case kept != nil && s.headless:
		h.revision = min(h.revision, kept.Revision)
	default: // it waits for the store
		kept = nil
	}
	h.agent = agent.NewSteps(agent.StepConfig{
		Host: model.Clone(s.store.graph.Get(model.KindHost, h.id)).(*model.Host), Settings: h.settings, Datapath: h.dp, Store: h.client, Bundles: h.client, Shared: h.client,
		RunDir: dir, Log: logs.Discard(), Clock: s.clock, Rand: rand.New(rand.NewPCG(s.seed, uint64(len(h.tables))<<32|uint64(h.tunnel[15]))).IntN, Jitter: jitter, TunnelDevice: tunnelDevice,
		Kept: kept, Keep: func(k *disk.Snapshot) { h.kept = k },
	})
	h.tables = append(h.tables, h.agent.Tables())
	if s.Log != nil {
		for _, w := range h.agent.Workers() {
			w.Watch(&worker.Watcher{Seen: h.seen})
		}
	}
	h.agent.SetLinks(h.links)
	s.logf("%s: agent starts", h.name)
	a := h.agent
	var beat func()
	beat = func() {
		if h.agent == a {
			h.wake()
			s.after(h.idle, beat)
		}
	}
	beat()
}

// jitter spreads retries by what they are for.
func jitter(k arp.Key, now int64) float64 {
	return float64((int64(k.ID[0])*31+int64(k.Addr[15])*17+now/1e6)%64) / 64
}

// kill ends the agent as SIGKILL does.
func (h *host) kill() {
	if h.agent == nil {
		return
	}
	h.s.logf("%s: agent killed", h.name)
	h.agent.Stop()
	h.client.close()
	h.agent = nil
}

// wake has the agent look what there is to do, soon.
func (h *host) wake() {
	if h.awake || h.agent == nil {
		return
	}
	h.awake = true
	h.s.after(h.s.between(5*time.Microsecond, 60*time.Microsecond)+h.slow, h.turn)
}

// turn has each of the host's goroutines run once, in some order.
func (h *host) turn() {
	h.awake = false
	if h.agent == nil {
		return
	}
	ws := h.agent.Workers()
	for _, i := range h.s.rnd.Perm(len(ws) + 1) {
		if i < len(ws) {
			if err := ws[i].Turn(0); err != nil {
				h.s.fail("worker", 0, "%s: worker %d ends: %v", h.name, i, err)
			}
			continue
		}
		was := h.agent.Ready()
		if err := h.agent.Step(context.Background()); err != nil {
			h.says(err)
		}
		if !was && h.agent.Ready() {
			h.s.logf("%s: agent is ready", h.name)
		}
	}
	h.checkNow()
	if h.agent.Ready() {
		h.revision = ws[0].Topology().Revision
		for _, w := range ws[1:] {
			h.revision = min(h.revision, w.Topology().Revision)
		}
		if h.client.doubt != 0 {
			h.revision = min(h.revision, h.client.doubt)
		}
	}
	h.checkOwners()
	if h.dp.Queued() > 0 {
		h.wake()
	}
}

// says writes down what the agent would log, when it is something else than the last time.
func (h *host) says(err error) {
	lines := strings.Split(err.Error(), "\n")
	slices.Sort(lines)
	if text := strings.Join(slices.Compact(lines), "; "); text != h.said {
		h.said = text
		h.s.logf("%s: %s", h.name, text)
	}
}

// seen writes down what a worker made of a packet.
func (h *host) seen(n *trace.Node) bool {
	h.s.Log(fmt.Sprintf("%12s %s: %s", "", h.name, indent(n)))
	return true
}

// plug makes an interface; unplug removes it.
func (h *host) plug(name string) {
	h.lastLink++
	h.dp.AddInterface(name, 1500)
	h.links = append(h.links, binding.Link{Name: name, Index: h.lastLink + 10, Up: true})
	h.tellLinks()
}

func (h *host) unplug(name string) {
	h.links = slices.DeleteFunc(h.links, func(l binding.Link) bool { return l.Name == name })
	h.dp.DelInterface(name)
	h.tellLinks()
}

func (h *host) tellLinks() {
	if h.agent != nil {
		h.agent.SetLinks(h.links)
		h.wake()
	}
}

// inject lets a frame arrive.
func (h *host) inject(iface string, frame []byte, key uint32) {
	if err := h.dp.Inject(iface, fake.Packet{Frame: frame, TunKey: key}); err == nil {
		h.wake()
	}
}

// sent carries a frame to where it goes.
func (h *host) sent(f fake.Sent) {
	if f.Tunnel {
		h.s.carry(h, f)
		return
	}
	for _, v := range h.s.vms {
		if v.host == h && v.iface == f.Interface {
			h.s.after(5*time.Microsecond, func() { v.receive(h, f.Frame) })
			return
		}
	}
}
