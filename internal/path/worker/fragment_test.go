package worker

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
)

const bigToWorld = "a udp eth=a>r:in ip=10.0.1.10>203.0.113.9 ports=4000>53 len=3000"

// inFragments lets the fragments of a packet enter, in the order given.
func (r *rig) inFragments(line string, id uint32, order ...int) {
	r.Helper()
	in := r.topo.MustInject(line)
	fs := pathtest.Fragments(in.View.Frame, 1480, id)
	for _, i := range order {
		if err := r.dp.Inject(r.topo.Ports[in.Port].Interface, fake.Packet{Frame: fs[i]}); err != nil {
			r.Fatal(err)
		}
	}
	r.turn()
}

// reassembled is the packet that has arrived in fragments.
func (r *rig) reassembled() packet.View {
	r.Helper()
	var fs [][]byte
	for _, s := range r.sent {
		fs = append(fs, s.Frame)
	}
	r.sent = nil
	v, why := packet.Parse(pathtest.Reassemble(fs), 1)
	if why != drop.None || packet.ChecksumState(&v) != packet.ChecksumValid {
		r.Fatalf("reassembled from %d fragments: %s, checksum %v", len(fs), why, packet.ChecksumState(&v))
	}
	return v
}

// TestFragmentsWaitForTheFirst: later fragments that come first are parked, and leave translated when it has come.
func TestFragmentsWaitForTheFirst(t *testing.T) {
	r := newRig(t, gateway, Config{})
	r.inFragments(bigToWorld, 5, 2, 1)
	if len(r.sent) != 0 || r.w.Counts().Waiting != 2 {
		t.Fatalf("sent %d, waiting %d", len(r.sent), r.w.Counts().Waiting)
	}
	r.inFragments(bigToWorld, 5, 0)
	v := r.reassembled()
	if v.Key.Src.String() != "203.0.113.1" || v.Key.SrcPort == 4000 || len(v.Payload()) != 3000 || !bytes.Equal(v.Payload(), make([]byte, 3000)) {
		t.Errorf("arrived as %+v", v.Key)
	}
	if n := r.flows(); n != 0 {
		t.Errorf("%d flows: their key does not hold the identification", n)
	}
	r.check()
}

// TestFragmentsWithoutTheFirst: they wait for 5 s, each port at the cost of its own bound.
func TestFragmentsWithoutTheFirst(t *testing.T) {
	r := newRig(t, gateway, Config{})
	for id := range uint32(100) {
		r.inFragments(bigToWorld, id, 1, 2)
	}
	c := r.w.Counts()
	if c.Waiting != 128 || c.Dropped[drop.ParkOverflow] != 72 {
		t.Errorf("waiting %d, park_overflow %d", c.Waiting, c.Dropped[drop.ParkOverflow])
	}
	r.in("b udp eth=b>r:in ip=10.0.1.11>203.0.113.9 ports=1>2") // another port is not concerned
	r.turn()
	r.expect("world < ")
	r.advance(6 * time.Second)
	if c = r.w.Counts(); c.Waiting != 0 || c.Dropped[drop.ParkTimeout] != 128 {
		t.Errorf("waiting %d, park_timeout %d", c.Waiting, c.Dropped[drop.ParkTimeout])
	}
	r.check()
}

// TestFragmentsKeepTheirConnection: one that is seen in fragments alone has no flow, and lives nevertheless.
func TestFragmentsKeepTheirConnection(t *testing.T) {
	r := newRig(t, gateway, Config{})
	r.inFragments(bigToWorld, 0, 0, 1, 2)
	first := r.reassembled()
	for id := range uint32(10) { // a UDP connection that nobody has answered lives for 30 s
		r.advance(20 * time.Second)
		r.inFragments(bigToWorld, id+1, 0, 1, 2)
		if v := r.reassembled(); v.Key.SrcPort != first.Key.SrcPort {
			t.Fatalf("%d s later translated to port %d, before to %d", 20*(id+1), v.Key.SrcPort, first.Key.SrcPort)
		}
	}
	if n := r.tables.Stats().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
	for range 20 {
		r.advance(20 * time.Second)
	}
	if n := r.tables.Stats().Connections; n != 0 {
		t.Errorf("%d connections after the last fragment", n)
	}
	r.check()
}

// TestFragmentsWaitForTheNetwork: no fragment is given up because another one waits for parts of the network, whichever comes first and however
// many parts there are, each nearly as long in coming as a packet may wait.
func TestFragmentsWaitForTheNetwork(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			l := newLoader(t, gateway)
			l.slow = true
			for _, i := range order {
				l.inFragments(bigToWorld, 7, i)
				l.advance(100 * time.Millisecond)
			}
			parts := 0
			for len(l.asked) > 0 {
				asked := l.asked
				l.asked = nil
				parts++
				l.advance(4500 * time.Millisecond)
				l.give(asked...)
				l.rig.turn()
			}
			if c := l.w.Counts(); c.Waiting != 0 || c.Dropped != [drop.NumReasons]uint64{} || parts < 3 {
				t.Fatalf("%d wait, dropped %v, after %d parts of the network", c.Waiting, c.Dropped, parts)
			}
			if v := l.reassembled(); v.Key.Src.String() != "203.0.113.1" || len(v.Payload()) != 3000 {
				t.Errorf("arrived as %+v", v.Key)
			}
		})
	}
}
