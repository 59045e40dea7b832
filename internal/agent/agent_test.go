package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a whole agent on a datapath in memory. The interfaces that it binds must really exist, as it
// follows the kernel's links: the loopback device is one that always does.
type rig struct {
	*testing.T
	dp     *fake.Datapath
	store  *mem.Store
	log    *logs.Logs
	client *debug.Client
	socket string
	stop   func()
}

var (
	vmMAC = match.MAC{2, 0, 0, 0, 0, 5}
	gwMAC = match.MAC{2, 0, 0, 0, 0, 1}
)

func ids(n byte) uuid.UUID { return uuid.UUID{n, 15: n} }

// network is a bridge with a VM and a router.
func network() []store.Op {
	meta := func(n byte, name string) model.Meta { return model.Meta{ID: ids(n), Name: name} }
	var ops []store.Op
	for _, o := range []model.Object{
		&model.Bridge{Meta: meta(1, "net"), AdminStateUp: true},
		&model.Router{Meta: meta(2, "gw"), AdminStateUp: true},
		&model.Host{Meta: meta(3, "h1")},
		&model.Port{Meta: meta(4, "up"), BridgeID: ids(1), AdminStateUp: true},
		&model.Port{Meta: meta(5, "leg"), RouterID: ids(2), PeerID: ids(4), AdminStateUp: true, MAC: gwMAC,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
		&model.Port{Meta: meta(6, "vm"), BridgeID: ids(1), AdminStateUp: true, MAC: vmMAC,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}},
		&model.Binding{Meta: meta(6, ""), PortID: ids(6), HostID: ids(3), Interface: "lo"},
	} {
		ops = append(ops, store.Op{Verb: store.Create, Object: o})
	}
	return ops
}

func start(t *testing.T, ops ...store.Op) *rig {
	h := &rig{T: t, dp: fake.New(clock.NewSystem(), 2), store: mem.New(), log: logs.New(slog.NewTextHandler(io.Discard, nil), slog.LevelInfo)}
	h.dp.AddInterface("lo", 1500)
	if _, err := h.store.Txn(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ready, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cfg := Config{
		Open:  func(*conf.Settings) (datapath.Datapath, error) { return h.dp, nil },
		Store: h.store, Bundles: h.store, Keys: h.store, Shared: h.store, Host: "h1", RunDir: dir, TunnelDevice: "none", Log: h.log, Ready: func() { close(ready) },
	}
	h.set(conf.Change{Template: "default", Set: map[string]string{
		"agent.datapath.max_flow_count": "1000", "agent.midolman.check_flow_expiration_interval": "100ms",
	}})
	go func() { ended <- Run(ctx, cfg) }()
	h.socket = filepath.Join(dir, "agent.sock")
	h.client = debug.NewClient(h.socket)
	h.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("agent:", err)
		}
		h.store.Close()
	}
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal("agent ended:", err)
	}
	t.Cleanup(h.stop)
	return h
}

func (h *rig) stats() debug.Stats {
	h.Helper()
	s, err := h.client.Stats(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	return s
}

// await gives the agent's goroutines time: a test that never sees ok fails by its own deadline.
func (h *rig) await(what string, ok func() bool) {
	h.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.Fatalf("%s: not after a minute: %+v", what, h.stats())
		}
	}
}

func addr(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }

func TestHost(t *testing.T) {
	h := start(t, network()...)
	var p debug.Port
	h.await("what is beside the port is loaded", func() bool { // ADR 22
		ports, err := h.client.Ports(t.Context())
		if err != nil || len(ports) != 1 {
			t.Fatalf("%+v, %v", ports, err)
		}
		p = ports[0]
		return p.GatewayMAC != ""
	})
	if p.Name != "vm" || p.Device != "bridge net" || p.Interface != "lo" || p.Number == 0 || p.Credit != 32 || p.GatewayMAC != gwMAC.String() {
		t.Errorf("%+v", p)
	}

	trees, err := h.client.Watch(t.Context(), "vm", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer trees.Close()
	arp := packet.BuildARPRequest(nil, vmMAC, addr("10.0.0.5"), addr("10.0.0.1"))
	if err := h.dp.Inject("lo", fake.Packet{Frame: arp}); err != nil {
		t.Fatal(err)
	}
	tree, err := trees.Next()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if tree.Render(&text); !strings.Contains(text.String(), "generate ARP reply") {
		t.Errorf("live trace:\n%s", &text)
	}
	h.await("answered", func() bool { return h.stats().Executed == 1 })
	if s := h.stats(); s.Consumed != 1 || s.Taken != 1 || s.Returned != 1 || s.InFlight != 0 || s.Host != "h1" {
		t.Errorf("%+v", s)
	}

	// Somebody meddles with the datapath's table: the audit removes what nobody owns.
	stray := match.Key{InPort: p.Number, EthType: 0x88b5}
	if _, err := h.dp.PutFlows([]datapath.Flow{{Key: stray}}); err != nil {
		t.Fatal(err)
	}
	h.await("the stray flow gone", func() bool { return h.dp.Counts().FlowsDeleted == 1 })
}

func TestTraceHasNoEffect(t *testing.T) {
	h := start(t, network()...)
	echo := packet.BuildEchoRequest(nil, packet.Ether{Dst: gwMAC, Src: vmMAC}, packet.IP{Src: addr("10.0.0.5"), Dst: addr("10.0.0.1")}, 1, 1, nil)
	for _, name := range []string{"vm", ids(6).String(), "lo"} {
		a, err := h.client.Trace(t.Context(), debug.TraceRequest{Port: name, Frame: echo})
		if err != nil || a.Result != "consumed" || !a.Allowed || a.Flow != nil || a.Tree == nil {
			t.Errorf("by %q: %+v, %v", name, a, err)
		}
	}
	a, err := h.client.Trace(t.Context(), debug.TraceRequest{Port: "vm", Frame: []byte("short")})
	if err != nil || a.Allowed || a.Reason != "malformed" {
		t.Errorf("a malformed frame: %+v, %v", a, err)
	}
	if _, err := h.client.Trace(t.Context(), debug.TraceRequest{Port: "nowhere", Frame: echo}); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("an unknown port: %v", err)
	}
	if s := h.stats(); s.In != 0 || s.Flows != 0 {
		t.Errorf("%+v", s)
	}
}

func TestChangesReachTheHost(t *testing.T) {
	h := start(t, network()...)
	_, err := h.store.Txn(t.Context(), store.Op{Verb: store.Delete, Object: &model.Binding{Meta: model.Meta{ID: ids(6)}}})
	if err != nil {
		t.Fatal(err)
	}
	gone := func() bool { ps, _ := h.dp.Ports(); return len(ps) == 0 }
	h.await("port unbound", gone)
	if s := h.stats(); s.Tokens != 256 {
		t.Errorf("%d tokens", s.Tokens)
	}
	_, err = h.store.Txn(t.Context(), store.Op{Verb: store.Create, Object: &model.Binding{Meta: model.Meta{ID: ids(6)}, PortID: ids(6), HostID: ids(3), Interface: "lo"}})
	if err != nil {
		t.Fatal(err)
	}
	h.await("port bound again", func() bool { return !gone() })
}

func TestInterfaceThatDoesNotExist(t *testing.T) {
	ops := network()
	ops[len(ops)-1].Object.(*model.Binding).Interface = "nosuchif0"
	h := start(t, ops...)
	ps, err := h.client.Ports(t.Context())
	if err != nil || len(ps) != 1 || ps[0].Status != debug.StatusWaiting || !strings.Contains(ps[0].Reason, "nosuchif0") {
		t.Errorf("%+v, %v", ps, err)
	}
}

func TestHostRegistersItself(t *testing.T) {
	h := start(t)
	hosts, _, err := h.store.List(t.Context(), model.KindHost)
	if err != nil || len(hosts) != 1 || hosts[0].GetMeta().Name != "h1" {
		t.Errorf("%v, %v", hosts, err)
	}
}

func TestNobodyListens(t *testing.T) {
	_, err := debug.NewClient(filepath.Join(t.TempDir(), "agent.sock")).Stats(t.Context())
	if err == nil || !strings.Contains(err.Error(), "is it running?") {
		t.Error(err)
	}
}

// What hypervisors and container runtimes ask for on the socket.
func TestBindings(t *testing.T) {
	ops := network()[:6] // the VM's port is there, and no binding
	ops = append(ops, store.Op{Verb: store.Create, Object: &model.Subnet{Meta: model.Meta{ID: ids(7), Name: "net4"}, BridgeID: ids(1),
		CIDR: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1")}})
	h := start(t, ops...)
	vm := ids(6).String()
	for range 2 {
		if err := h.client.Bind(t.Context(), vm, "lo"); err != nil {
			t.Fatal(err)
		}
	}
	bound := func() bool { ps, _ := h.dp.Ports(); return len(ps) == 1 }
	h.await("bound", bound)
	for _, c := range []struct {
		port, iface, want string
		cause             error
	}{
		{ids(9).String(), "lo", "port " + ids(9).String() + ": not found", debug.ErrNotFound},
		{"vm", "lo", "no UUID", debug.ErrInvalid},
		{vm, "a/b", "interface", debug.ErrInvalid},
	} {
		if err := h.client.Bind(t.Context(), c.port, c.iface); !errors.Is(err, c.cause) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("bind %s %s: %v", c.port, c.iface, err)
		}
	}
	for _, want := range []bool{true, false} {
		if done, err := h.client.Unbind(t.Context(), vm); done != want || err != nil {
			t.Errorf("unbind: %v, %v, want %v", done, err, want)
		}
	}
	h.await("unbound", func() bool { return !bound() })

	c, err := h.client.AddContainer(t.Context(), "cni:net:c1:eth0", debug.ContainerRequest{Bridge: "net", Interface: "lo", PortSecurity: true})
	if err != nil || c.MTU != model.DefaultMTU || len(c.Addresses) != 1 || c.Addresses[0].Gateway.String() != "10.0.0.1" || c.Addresses[0].Address.Bits() != 24 {
		t.Fatalf("%+v, %v", c, err)
	}
	if !bound() {
		t.Error("not attached when it is answered")
	}
	list, err := h.client.Containers(t.Context(), "cni:net:")
	if err != nil || len(list) != 1 || list[0].Port != c.Port || list[0].Status == debug.StatusWaiting || list[0].Addresses[0].Address.Addr() != c.Addresses[0].Address.Addr() {
		t.Errorf("%+v, %v", list, err)
	}
	if other, err := h.client.Containers(t.Context(), "cni:other:"); err != nil || len(other) != 0 {
		t.Errorf("%+v, %v", other, err)
	}
	for range 2 {
		if err := h.client.RemoveContainer(t.Context(), "cni:net:c1:eth0"); err != nil {
			t.Error(err)
		}
	}
	h.await("removed", func() bool { return !bound() })
}
