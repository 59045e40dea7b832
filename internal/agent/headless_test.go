package agent

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/disk"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// life is one host through several lives of its agent.
type life struct {
	*testing.T
	server  *mem.Server
	dp      *fake.Datapath
	dir     string
	log     strings.Builder
	machine live.Machine
	heir    *heir        // the datapath of the next agent, dp beside another; nil: dp alone
	slow    *slowRouters // its store; nil: as fast as can be

	link   *mem.Store // of the agent at hand
	client *debug.Client
	ready  chan struct{}
	waits  atomic.Bool
	stop   func()
}

func newLife(t *testing.T, ops ...store.Op) *life {
	l := &life{T: t, server: mem.NewServer(), dp: fake.New(clock.NewSystem(), 1), dir: t.TempDir()}
	l.dp.AddInterface("lo", 1500)
	l.write(ops...)
	return l
}

func (l *life) write(ops ...store.Op) {
	l.Helper()
	c := l.server.Client()
	defer c.Close()
	if _, err := c.Txn(l.Context(), ops...); err != nil {
		l.Fatal(err)
	}
}

// begin starts an agent. away: it cannot reach the store.
func (l *life) begin(away bool) {
	l.dp.Reopen()
	l.link, l.ready = l.server.Client(), make(chan struct{})
	if away {
		l.link.Disconnect()
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	log := logs.New(slog.NewTextHandler(io.Discard, nil), slog.LevelInfo)
	ready := l.ready
	cfg := Config{
		Open:  func(*conf.Settings) (datapath.Datapath, error) { return l.dp, nil },
		Store: l.link, Bundles: l.link, Keys: l.link, Shared: l.link, Host: "h1", RunDir: filepath.Join(l.dir), StateDir: filepath.Join(l.dir, "state"), Machine: l.machine,
		TunnelDevice: "none", Log: log, Ready: func() { close(ready) }, Waiting: func() { l.waits.Store(true) },
	}
	if l.heir != nil {
		cfg.Open = func(*conf.Settings) (datapath.Datapath, error) { return l.heir, nil }
	}
	if l.slow != nil {
		l.slow.Bundles = l.link
		cfg.Bundles = l.slow
	}
	go func() { ended <- Run(ctx, cfg) }()
	l.client = debug.NewClient(filepath.Join(l.dir, "agent.sock"))
	l.stop = func() {
		cancel()
		if err := <-ended; err != nil && !strings.Contains(err.Error(), "context canceled") {
			l.Error("agent:", err)
		}
		l.link.Close()
	}
}

func (l *life) await(what string, ok func() bool) {
	l.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.Fatal("not after twenty seconds:", what)
		}
	}
}

func (l *life) serves() {
	l.Helper()
	select {
	case <-l.ready:
	case <-time.After(time.Minute):
		l.Fatal("the agent does not become ready")
	}
}

// answered asks the router for its address: only an agent that knows the network answers.
func (l *life) answered(router string) {
	l.Helper()
	ask := packet.BuildEchoRequest(nil, packet.Ether{Dst: gwMAC, Src: vmMAC}, packet.IP{Src: addr("10.0.0.5"), Dst: addr(router)}, 1, 1, nil)
	for { // what came before
		if _, ok := l.dp.Received("lo"); !ok {
			break
		}
	}
	l.await("an answer of the router", func() bool {
		if err := l.dp.Inject("lo", fake.Packet{Frame: ask}); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		_, ok := l.dp.Received("lo")
		return ok
	})
}

// flow has a flow installed: packets to dst are dropped silently.
func (l *life) flow(dst string) {
	l.Helper()
	before := l.flows()
	frame := packet.BuildUDP(nil, packet.Ether{Dst: gwMAC, Src: vmMAC}, packet.IP{Src: addr("10.0.0.5"), Dst: addr(dst)}, 1000, 2000, []byte("x"))
	l.await("a flow to "+dst, func() bool {
		if err := l.dp.Inject("lo", fake.Packet{Frame: frame}); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		return l.flows() > before
	})
}

func (l *life) flows() (n int) {
	if err := l.dp.DumpFlows(func(f *datapath.FlowInfo) bool {
		if f.Key.Proto == packet.ProtoUDP {
			n++
		}
		return true
	}); err != nil {
		l.Fatal(err)
	}
	return n
}

func silent() []store.Op {
	return append(network(), store.Op{Verb: store.Create, Object: &model.Route{Meta: model.Meta{ID: ids(8)}, RouterID: ids(2),
		Destination: netip.MustParsePrefix("192.0.2.0/24"), NextHop: model.NextHopBlackhole}})
}

// An agent that starts while the store is away serves the network that an earlier one has kept: flows that are there stay, new ones are
// decided. When the store is back, only what is different changes.
func TestStartWithoutTheStore(t *testing.T) {
	l := newLife(t, silent()...)
	set := conf.Change{Template: "default", Set: map[string]string{"agent.datapath.max_flow_count": "777"}}
	if err := conf.Init(t.Context(), l.server.Client(), []conf.Change{set}); err != nil {
		t.Fatal(err)
	}
	l.begin(false)
	l.serves()
	l.flow("192.0.2.1")
	l.stop()

	l.begin(true)
	began := time.Now()
	l.serves()
	t.Logf("ready without the store after %v", time.Since(began))
	if l.waits.Load() {
		t.Error("it waits for the store")
	}
	if s, err := l.client.Stats(t.Context()); err != nil || s.Adopted != 1 {
		t.Errorf("adopted: %+v, %v", s, err)
	}
	l.answered("10.0.0.1")
	l.flow("192.0.2.2")
	if l.flows() != 2 {
		t.Errorf("%d flows of two", l.flows())
	}

	// Meanwhile the network changes: the router has another address.
	l.write(store.Op{Verb: store.Replace, Object: &model.Port{Meta: model.Meta{ID: ids(5), Name: "leg"}, RouterID: ids(2), PeerID: ids(4), AdminStateUp: true, MAC: gwMAC,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64")}}})
	other := &model.Port{Meta: model.Meta{ID: ids(9), Name: "other"}, BridgeID: ids(1), AdminStateUp: true}
	l.write(store.Op{Verb: store.Create, Object: other})
	l.link.Reconnect()
	l.await("the store is followed", func() bool {
		s, err := l.client.Stats(t.Context())
		return err == nil && s.StoreFollowed
	})
	l.stop()

	// Nothing has changed at all.
	l.begin(true)
	l.serves()
	l.answered("10.0.0.1")
	l.flow("192.0.2.3")
	before := l.dp.Counts().FlowsDeleted
	l.link.Reconnect()
	l.await("the store is followed", func() bool {
		s, err := l.client.Stats(t.Context())
		return err == nil && s.StoreFollowed
	})
	if now := l.dp.Counts().FlowsDeleted; now != before {
		t.Errorf("%d flows are deleted although nothing has changed", now-before)
	}
	if l.flows() != 1 {
		t.Error("the flow is gone")
	}
	l.stop()
}

// What cannot be used is refused by name, and the agent waits for the store.
func TestKeptButUnusable(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(path string) error
	}{
		{"damaged", func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			return os.WriteFile(path, b, 0o600)
		}},
		{"another host's", func(path string) error {
			s, err := disk.Read(filepath.Dir(path), "h1")
			if err != nil {
				return err
			}
			s.Name = "h2"
			return disk.Write(filepath.Dir(path), s)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLife(t, silent()...)
			l.begin(false)
			l.serves()
			l.stop()
			if err := c.spoil(filepath.Join(l.dir, "state", disk.File)); err != nil {
				t.Fatal(err)
			}
			l.begin(true)
			l.await("it waits for the store", l.waits.Load)
			if _, err := os.Stat(filepath.Join(l.dir, "state", disk.File+".bad")); err != nil {
				t.Errorf("what cannot be used is not set aside: %v", err)
			}
			l.link.Reconnect()
			l.serves()
			l.answered("10.0.0.1")
			l.stop()
		})
	}
}

// What is kept belongs to a host that the store does not know: the host begins anew.
func TestKeptOfAnotherStore(t *testing.T) {
	l := newLife(t, silent()...)
	l.begin(false)
	l.serves()
	l.stop()
	l.server = mem.NewServer() // another cloud, in which nothing is bound here
	l.begin(false)
	l.serves()
	if s, err := l.client.Stats(t.Context()); err != nil || s.Adopted != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	l.stop()
}

// Ports for translation that an earlier agent has claimed can be used without the store, for as long as the claim lasts.
func TestBlocksWithoutTheStore(t *testing.T) {
	b := newBlocks("h1", nil, slog.Default())
	p := pool
	b.restore([]string{blockPath(p, 1024), blockPath(p, 2048)}, time.Now())
	got := map[uint16]bool{}
	for range 3 {
		b.refuseOne(blockRequest{pool: p, lo: 1024, hi: 65535, done: func(first uint16, ok bool) {
			if ok {
				got[first] = true
			}
		}})
	}
	if len(got) != 2 || !got[1024] || !got[2048] {
		t.Errorf("leased %v, want those of the earlier agent, each once", got)
	}
	b.restore([]string{blockPath(p, 4096)}, time.Now().Add(-blocksTTL-time.Second))
	b.refuseOne(blockRequest{pool: p, lo: 1024, hi: 65535, done: func(first uint16, ok bool) {
		if ok {
			t.Errorf("%d is leased although others may have it", first)
		}
	}})
}
