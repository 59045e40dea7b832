package agent

import (
	"log/slog"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/worker"
	"github.com/viaduct-net/viaduct/internal/state"
)

// What a port sends before every worker knows it is refused, and takes nobody's tokens.
func TestPortsWaitForWorkers(t *testing.T) {
	clk := new(clock.Manual)
	dp := fake.New(clk, 2)
	policy := htb.New(htb.DefaultConfig(), dp.RootCredit())
	tables := state.New(state.DefaultConfig(), clk)
	var ws []*worker.Worker
	for i := range dp.Workers() {
		ws = append(ws, worker.New(worker.Config{ID: i}, worker.Deps{Datapath: dp, State: tables, Tokens: policy, Clock: clk}))
	}
	turn := func(w *worker.Worker) {
		t.Helper()
		if err := w.Turn(0); err != nil {
			t.Fatal(err)
		}
	}
	p := newPorts(dp, policy, ws, func(uuid.UUID) uint32 { return 0 }, func(uuid.UUID) (r datapath.Rates) { return r }, slog.New(slog.DiscardHandler))
	p.events = newEvents()
	send := func(iface string, no uint32, reason drop.Reason, refused, admitted uint64) {
		t.Helper()
		if err := dp.Inject(iface, fake.Packet{Frame: packet.BuildARPRequest(nil, vmMAC, addr("10.0.0.5"), addr("10.0.0.1"))}); err != nil {
			t.Fatal(err)
		}
		if s, err := dp.Stats(no); err != nil || s.Drops[reason] != refused || s.Admitted != admitted {
			t.Errorf("%v %+v", err, s)
		}
	}
	dp.AddInterface("tap0", 1500)
	if err := p.Bind(ids(6), "tap0", 1); err != nil {
		t.Fatal(err)
	}
	send("tap0", 1, drop.NotReady, 1, 0)
	turn(ws[0])
	send("tap0", 1, drop.NotReady, 2, 0)
	if a := policy.Account(); a.Total != 256 || a.Held != 256 {
		t.Errorf("before: %+v", a)
	}
	turn(ws[1])
	send("tap0", 1, drop.NotReady, 2, 1)
	turn(ws[0])
	turn(ws[1])
	if c := [2]worker.Counts{ws[0].Counts(), ws[1].Counts()}; c[0].In+c[1].In != 1 || c[0].Dropped[drop.NotBound]+c[1].Dropped[drop.NotBound] != 0 {
		t.Errorf("%+v", c)
	}
	p.Unbind(ids(6), "tap0", 1)

	// A port that has gone before the workers knew it gets no tokens any more.
	if err := p.Bind(ids(6), "tap0", 1); err != nil {
		t.Fatal(err)
	}
	turn(ws[0])
	p.Unbind(ids(6), "tap0", 1)
	turn(ws[0])
	turn(ws[1])
	if a := policy.Account(); a.Total != 256 || a.Held != 256 || len(policy.Snapshot()) != 5 {
		t.Errorf("after: %+v, %+v", a, policy.Snapshot())
	}
}
