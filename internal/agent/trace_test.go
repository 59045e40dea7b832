package agent

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// A host holds the part of the network that its ports need. A trace elsewhere has the rest loaded, by way of the port's id; where that cannot be had,
// it says what is missing.
func TestTraceBeyondWhatIsHeld(t *testing.T) {
	ops := network()
	meta := func(n byte, name string) model.Meta { return model.Meta{ID: ids(n), Name: name} }
	mac := func(n byte) match.MAC { return match.MAC{2, 0, 0, 0, 1, n} }
	for _, o := range []model.Object{
		&model.Bridge{Meta: meta(20, "island"), AdminStateUp: true},
		&model.Port{Meta: meta(21, "friday"), BridgeID: ids(20), AdminStateUp: true, MAC: mac(21)},
		&model.Port{Meta: meta(22, "robinson"), BridgeID: ids(20), AdminStateUp: true, MAC: mac(22)},
		&model.Bridge{Meta: meta(30, "atoll"), AdminStateUp: true},
		&model.Port{Meta: meta(31, "crab"), BridgeID: ids(30), AdminStateUp: true, MAC: mac(31)},
	} {
		ops = append(ops, store.Op{Verb: store.Create, Object: o})
	}
	h := start(t, ops...)
	frame := packet.BuildUDP(nil, packet.Ether{Dst: mac(22), Src: mac(21)}, packet.IP{Src: addr("10.9.0.1"), Dst: addr("10.9.0.2")}, 1, 2, nil)
	ask := func(port string) (debug.TraceAnswer, string, error) {
		t.Helper()
		a, err := h.client.Trace(t.Context(), debug.TraceRequest{Port: port, Frame: frame})
		if err != nil {
			return a, "", err
		}
		var tree strings.Builder
		if err := a.Tree.Render(&tree); err != nil {
			t.Fatal(err)
		}
		return a, tree.String(), nil
	}
	if _, _, err := ask("friday"); err == nil || !strings.Contains(err.Error(), "this host has needed") || !strings.Contains(err.Error(), "by its id") {
		t.Errorf("a name that is not held: %v", err)
	}
	a, tree, err := ask(ids(21).String())
	if err != nil {
		t.Fatal(err)
	}
	// Its neighbour is bound nowhere: that is known only when both ports and the bridge are.
	if a.Reason != "unplugged" || !strings.Contains(tree, "robinson") {
		t.Errorf("%q, %q:\n%s", a.Result, a.Reason, tree)
	}
	if a, _, err := ask("friday"); err != nil || a.Reason != "unplugged" {
		t.Errorf("by name, once it is held: %+v, %v", a, err)
	}
	if _, _, err := ask(uuid.UUID{99}.String()); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a port that does not exist: %v", err)
	}
	h.store.Disconnect()
	h.await("the store is away", func() bool { return !h.stats().StoreFollowed })
	a, tree, err = ask(ids(31).String())
	if err != nil || a.Allowed || !strings.Contains(tree, "this host does not hold port "+ids(31).String()+", and the store cannot be asked") {
		t.Errorf("without the store: %+v, %v\n%s", a, err, tree)
	}
}
