package sim_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// TestMaskIsSoundWithVLANs: the same on bridges with any mixture of trunks and access ports.
func TestMaskIsSoundWithVLANs(t *testing.T) {
	var a, b sim.Context
	seen, changed := map[drop.Reason]int{}, map[action.Op]int{}
	rapid.Check(t, func(t *rapid.T) {
		text := rich
		for _, p := range []string{"va", "vc", "vd", "a:r", "a:c", "c:a", "ve"} {
			if id := pick(t, "vlan of "+p, 0, 7, 7, 8); id != 0 {
				text += fmt.Sprintf("vlan %s %d\n", p, id)
			}
		}
		text += "subnet v4 a 10.0.1.0/24 vlan=7 gw=10.0.1.1\nsubnet v6 a fd01::/64 vlan=7 gw=fd01::1 mode=stateful\nsubnet w4 c 10.0.3.0/24 vlan=8\n"
		topo := pathtest.MustParse(text)
		for range 50 {
			g := gen{t, topo}
			in := pathtest.Injection{Port: pathtest.ID(pick(t, "port", "va", "vc", "vd", "ve", "up")), View: g.view()}
			topo.Simulate(&a, &in)
			seen[a.Reason]++
			for i := range a.Actions {
				changed[a.Actions[i].Op]++
			}
			if a.Result != sim.ResultConsumed && a.Result != sim.ResultNotYet && !a.UserSpace {
				checkTwin(t, topo, &a, &b, in, mutate(in.View, g.view(), a.Mask))
			}
		}
	})
	if seen[drop.NotInVLAN] == 0 || changed[action.PushVLAN] == 0 || changed[action.PopVLAN] == 0 {
		t.Errorf("the generator has become too narrow: %v, %v", seen, changed)
	}
}

// TestVLANsAreApart: whatever a VM of one VLAN sends, no other VLAN's access port gets it, and a trunk gets it with
// the VLAN's tag.
func TestVLANsAreApart(t *testing.T) {
	const network = `
bridge sw
bridge other
vm a10 sw 02:00:00:00:00:0a 10.0.1.5
vm b10 sw 02:00:00:00:00:0b
vm a20 sw 02:00:00:00:00:0a 10.0.1.5
vm b20 sw
vm trunk sw
vm o other
link sw other
vlan a10 10
vlan b10 10
vlan a20 20
vlan b20 20
vlan sw:other 20
mac sw 02:00:00:00:00:77 b20 20
mac sw 02:00:00:00:00:77 trunk 10
`
	vlans := map[string]uint16{"a10": 10, "b10": 10, "a20": 20, "b20": 20, "o": 20}
	topo := pathtest.MustParse(network)
	arrived := 0
	rapid.Check(t, func(rt *rapid.T) {
		from := pick(rt, "from", "a10", "b10", "a20", "b20", "o")
		kind := pick(rt, "kind", "arp op=request", "udp ports=1>2")
		in := topo.MustInject(fmt.Sprintf("%s %s eth=02:00:00:00:00:%s>%s ip=10.0.1.9>%s", from, kind, pick(rt, "mac", "0a", "0b", "77", "99"),
			pick(rt, "dst", "a10", "b10", "02:00:00:00:00:77", "02:00:00:00:00:88", "broadcast"), pick(rt, "ip", "10.0.1.5", "10.0.1.6")))
		if tci := pick(rt, "tag", uint16(0), 0, 0, match.VLANPresent, match.VLANPresent|10, match.VLANPresent|20); tci != 0 {
			v := &in.View
			frame := append(append(append([]byte{}, v.Frame[:12]...), 0x81, 0, byte(tci>>8)&0x0f, byte(tci)), v.Frame[12:]...)
			*v, _ = packet.Parse(frame, 1)
		}
		var c sim.Context
		topo.Simulate(&c, &in)
		tag := in.View.Key.VLAN
		for _, a := range c.Actions {
			switch a.Op {
			case action.PushVLAN:
				tag = a.Value | match.VLANPresent
			case action.PopVLAN:
				tag = 0
			case action.Forward:
				arrived++
				to := topo.Ports[a.VPort].Name
				switch {
				case to == "trunk" && tag&0xfff != vlans[from]:
					rt.Fatalf("%s sends through the trunk as VLAN %#x", from, tag)
				case to != "trunk" && vlans[to] != vlans[from]:
					rt.Fatalf("%s reaches %s", from, to)
				case to != "trunk" && tag != 0:
					rt.Fatalf("%s gets a tag: %#x", to, tag)
				}
			}
		}
	})
	if arrived == 0 {
		t.Error("nothing arrives")
	}
}
