package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

func TestEvents(t *testing.T) {
	h := start(t, network()...)
	shown := func(parts ...string) func() bool {
		return func() bool {
			text, err := h.command(t.Context(), "events")
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range parts {
				if !strings.Contains(text, p) {
					return false
				}
			}
			return true
		}
	}
	h.await("the port and the start to be told", shown("port-active", "ready", "store-followed"))
	if _, err := h.store.Txn(t.Context(), store.Op{Verb: store.Delete, Object: &model.Binding{Meta: model.Meta{ID: ids(6)}}}); err != nil {
		t.Fatal(err)
	}
	h.await("the port's end to be told", shown("port-inactive"))
	h.store.Disconnect()
	h.await("the store's loss to be told", shown("store-away"))
	h.store.Reconnect()
}

// TestRefusalsAreTold: of a port without a name by its id.
func TestRefusalsAreTold(t *testing.T) {
	ops := network()
	ops[5].Object.(*model.Port).Name = ""
	h := start(t, ops...)
	h.applied(h.set(own(vmBurst, "0", globalBurst, "1")))
	arp := packet.BuildARPRequest(nil, vmMAC, addr("10.0.0.5"), addr("10.0.0.1"))
	h.await("refusals to be told", func() bool {
		for range 10 {
			if err := h.dp.Inject("lo", fake.Packet{Frame: arp}); err != nil {
				t.Fatal(err)
			}
		}
		text, err := h.command(t.Context(), "events")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if strings.Contains(line, debug.EventRefused) && strings.Contains(line, ids(6).String()) && strings.Contains(line, "packets were refused") {
				return true
			}
		}
		return false
	})
}

// TestEventsAreBounded: who is slow is told how many it missed, and then goes on with those that are there.
func TestEventsAreBounded(t *testing.T) {
	a := &Agent{events: newEvents()}
	a.events.add("first", "", "")
	enough := errors.New("enough")
	var seen []debug.Event
	err := a.Events(t.Context(), true, func(ev debug.Event) error {
		if seen = append(seen, ev); len(seen) == 1 {
			for range maxEvents + 10 { // while the reader is busy
				a.events.add("flood", "", "")
			}
		}
		if len(seen) == maxEvents+2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if seen[1].Kind != debug.EventLost || !strings.HasPrefix(seen[1].Text, "10 events") || seen[2].Seq != 11 || seen[len(seen)-1].Seq != maxEvents+10 {
		t.Errorf("%+v then %+v ... %+v", seen[1], seen[2], seen[len(seen)-1])
	}
}
