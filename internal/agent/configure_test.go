package agent

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/fragment"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

const (
	globalBurst = "agent.datapath.global_incoming_burst_capacity"
	vmBurst     = "agent.datapath.vm_incoming_burst_capacity"
)

// set makes changes of the configuration, all or none.
func (h *rig) set(changes ...conf.Change) (revision int64) {
	h.Helper()
	hosts := func(ctx context.Context) (map[uuid.UUID]bool, error) {
		list, _, err := h.store.List(ctx, model.KindHost)
		ids := make(map[uuid.UUID]bool)
		for _, o := range list {
			ids[o.GetMeta().ID] = true
		}
		return ids, err
	}
	u, err := conf.Update(h.Context(), h.store, hosts, changes)
	if err != nil {
		h.Fatal(err)
	}
	return u.Revision
}

// applied waits until the agent reports that it has what the revision has.
func (h *rig) applied(revision int64) (r conf.Report) {
	h.Helper()
	h.await("applied", func() bool {
		rs, err := conf.Reports(h.Context(), h.store)
		if err != nil {
			h.Fatal(err)
		}
		r = rs[ids(3)]
		return r.Revision >= revision
	})
	return r
}

// own is a change of the host of a rig.
func own(kv ...string) conf.Change {
	c := conf.Change{Host: ids(3), Set: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		c.Set[kv[i]] = kv[i+1]
	}
	return c
}

// The schema's defaults are those of the rooms that they configure.
func TestDefaults(t *testing.T) {
	s := conf.Defaults()
	if d := cmp.Diff(htb.DefaultConfig(), s.Tokens); d != "" {
		t.Error(d)
	}
	want, got := state.DefaultConfig(), stateConfig(s)
	if want.ARP != got.ARP || want.MAC != got.MAC || want.NAT != got.NAT || want.Fragments != got.Fragments {
		t.Errorf("%+v, want %+v", got, want)
	}
	want.Conntrack.OnRemove, got.Conntrack.OnRemove = nil, nil
	if d := cmp.Diff(want.Conntrack, got.Conntrack); d != "" {
		t.Error(d)
	}
}

// Fragments of one datagram may have one of the tables' seconds between them, as configured at the start and while the agent runs.
func TestFirstFragmentsAreRemembered(t *testing.T) {
	clk, cfg := new(clock.Manual), stateConfig(conf.Defaults())
	tables := state.New(cfg, clk)
	for id := range uint32(2) {
		datagram := tag.Tag{Kind: tag.Fragment, ID: ids(6), N: id}
		tables.RememberFragment(datagram, fragment.First{SrcPort: 7})
		clk.Advance(time.Second)
		tables.Tick()
		if port, _, _, ok := tables.FirstFragment(datagram); !ok || port != 7 {
			t.Errorf("datagram %d: port %d, %v", id, port, ok)
		}
		tables.Reconfigure(cfg)
	}
}

func TestConfiguredWhileItRuns(t *testing.T) {
	h := start(t, network()...)
	port := func() (credit int64, drops uint64) {
		ps, err := h.client.Ports(t.Context())
		if err != nil || len(ps) != 1 {
			t.Fatalf("%v, %v", ps, err)
		}
		return ps[0].Credit, ps[0].Drops["no_credit"]
	}
	for _, n := range []struct {
		vm, global           string
		credit, root, tokens int64
	}{
		{"8", "256", 8, 248, 256}, {"300", "16", 300, 0, 300}, {"0", "20", 0, 20, 20}, {"32", "256", 32, 224, 256},
	} {
		r := h.applied(h.set(own(vmBurst, n.vm, globalBurst, n.global)))
		credit, _ := port()
		if s := h.stats(); credit != n.credit || s.RootCredit != n.root || s.Tokens != n.tokens || len(r.Pending)+len(r.Problems) != 0 {
			t.Errorf("%+v: credit %d, root %d of %d; %+v", n, credit, s.RootCredit, s.Tokens, r)
		}
	}

	// Protection off: what the port has no token for, the root has.
	h.applied(h.set(own(vmBurst, "0", globalBurst, "2")))
	arp := packet.BuildARPRequest(nil, vmMAC, addr("10.0.0.5"), addr("10.0.0.1"))
	for range 20 {
		if err := h.dp.Inject("lo", fake.Packet{Frame: arp}); err != nil {
			t.Fatal(err)
		}
	}
	h.await("served", func() bool { s := h.stats(); return s.In > 0 && s.InFlight == 0 && s.RootCredit == 2 })
	if s := h.stats(); s.Taken != s.Returned {
		t.Errorf("%+v", s)
	}

	// Levels.
	log := h.log.For(logFlows)
	h.applied(h.set(own("agent.loggers.root", "error", "agent.loggers.flow-management", "debug")))
	if !log.Enabled(t.Context(), slog.LevelDebug) || h.log.For("").Enabled(t.Context(), slog.LevelWarn) || !h.log.For(logStore).Enabled(t.Context(), slog.LevelError) {
		t.Error("log levels are not as configured")
	}

	// What waits for a restart is said, until it is taken back.
	if r := h.applied(h.set(own("agent.datapath.driver", "ovs"))); len(r.Pending) != 1 || r.Pending[0] != "agent.datapath.driver" {
		t.Errorf("%+v", r)
	}
	if r := h.applied(h.set(conf.Change{Host: ids(3), Unset: []string{"agent.datapath.driver"}})); len(r.Pending) != 0 {
		t.Errorf("%+v", r)
	}

	// What is no value is named, and the next layer counts.
	bad := "many"
	_, rev, err := h.store.ReadKeys(t.Context(), ".conf/")
	if err != nil {
		t.Fatal(err)
	}
	rev, err = h.store.WriteKeys(t.Context(), ".conf/.revision", rev, map[string]*string{".conf/host/" + ids(3).String() + "/" + vmBurst: &bad})
	if err != nil {
		t.Fatal(err)
	}
	if r := h.applied(rev); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], `value "many"`) {
		t.Errorf("%+v", r)
	}
	if credit, _ := port(); credit != 32 {
		t.Errorf("credit %d", credit)
	}
}

// A lower bound of flows is met, and a datapath's own bound is respected.
func TestMaxFlowCount(t *testing.T) {
	h := start(t, network()...)
	const had = 40
	for i := range had {
		frame := make([]byte, 60) // of a protocol that routers drop, each from another station
		copy(frame, gwMAC[:])
		copy(frame[6:], []byte{2, 0, 0, 0, 1, byte(i), 0x88, 0xb5})
		if err := h.dp.Inject("lo", fake.Packet{Frame: frame}); err != nil {
			t.Fatal(err)
		}
	}
	h.await("served", func() bool { return h.stats().Flows == had }) // packets are counted before
	h.applied(h.set(own("agent.datapath.max_flow_count", "10")))
	if s := h.stats(); s.Flows > 10 || s.Flows == 0 {
		t.Errorf("%d flows", s.Flows)
	}
	h.await("evicted", func() bool { return h.dp.Counts().FlowsDeleted == had-h.stats().Flows })
}

// Two agents on one etcd: what is set for one host concerns that one alone, and a template those that have it.
func TestOneHostAlone(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	e, err := etcd.Embed(ctx, etcd.EmbedConfig{Dir: t.TempDir(), ClientURL: "http://127.0.0.1:0", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	open := func() *etcd.Store {
		s, err := etcd.Open(etcd.Config{Endpoints: []string{e.Endpoint()}, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	var sockets, names []string
	for _, name := range []string{"h1", "h2"} {
		s, dir, ready := open(), t.TempDir(), make(chan struct{})
		agent, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		cfg := Config{
			Open:  func(*conf.Settings) (datapath.Datapath, error) { return fake.New(clock.NewSystem(), 1), nil },
			Store: s, Bundles: s, Keys: s, Shared: s, Host: name, RunDir: dir, TunnelDevice: "none", Log: logs.Discard(), Ready: func() { close(ready) },
		}
		go func() { ended <- Run(agent, cfg) }()
		t.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(name, err)
			}
		})
		<-ready
		sockets, names = append(sockets, filepath.Join(dir, "agent.sock")), append(names, name)
	}
	s := open()
	hosts, _, err := s.List(ctx, model.KindHost)
	if err != nil || len(hosts) != 2 {
		t.Fatalf("%v, %v", hosts, err)
	}
	exist := map[uuid.UUID]bool{hosts[0].GetMeta().ID: true, hosts[1].GetMeta().ID: true}
	tokens := func(host int) int64 {
		st, err := debug.NewClient(sockets[host]).Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return st.Tokens
	}
	gateway := "gateway"
	for _, step := range []struct {
		changes []conf.Change
		want    [2]int64
	}{
		{[]conf.Change{{Host: hosts[0].GetMeta().ID, Set: map[string]string{globalBurst: "100"}}}, [2]int64{100, 256}},
		{[]conf.Change{{Template: "default", Set: map[string]string{globalBurst: "50"}}}, [2]int64{100, 50}},
		{[]conf.Change{{Template: gateway, Set: map[string]string{globalBurst: "70"}}, {Host: hosts[1].GetMeta().ID, Assign: &gateway}}, [2]int64{100, 70}},
		{[]conf.Change{{Host: hosts[0].GetMeta().ID, Unset: []string{globalBurst}}}, [2]int64{50, 70}},
		{[]conf.Change{{Template: gateway, Unset: []string{globalBurst}}}, [2]int64{50, 50}},
	} {
		if _, err := conf.Update(ctx, s, func(context.Context) (map[uuid.UUID]bool, error) { return exist, nil }, step.changes); err != nil {
			t.Fatal(err)
		}
		for i, want := range step.want {
			for tokens(i) != want {
				if ctx.Err() != nil {
					t.Fatalf("%+v: %s has %d tokens, want %d", step.changes, names[i], tokens(i), want)
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
}
