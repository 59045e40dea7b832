package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
)

// twoExits is a subnet that leaves by either of two ports: near is on the first host, world on the second. A balancer is before a.
const twoExits = `
bridge in
router r
vm a in 02:00:00:00:00:0a 10.0.1.10
vm b in 02:00:00:00:00:0b 10.0.1.11
link in r=10.0.1.1/24
bridge out
vm near out 02:00:00:00:00:09 203.0.113.9
vm world out 02:00:00:00:00:0c 203.0.113.8
link out r=203.0.113.1/24
masquerade r:out
pool web 60
server web s1 10.0.1.10 80
server web s2 10.0.1.11 80
balancer lb r 203.0.113.80
listen lb tcp 80 web
`

// group makes ports a stateful port group, as both hosts see them.
func (p *pair) group(names ...string) {
	for _, r := range []*rig{p.h1, p.h2} {
		for _, name := range names {
			v := *r.topo.Ports[pathtest.ID(name)]
			for _, other := range names {
				if other != name {
					v.Siblings = append(v.Siblings, pathtest.ID(other))
				}
			}
			r.topo.Ports[v.ID] = &v
		}
	}
}

// known is how many connections each host knows.
func (p *pair) known() [2]int {
	p.turn()
	return [2]int{p.h1.tables.Stats().Connections, p.h2.tables.Stats().Connections}
}

const aToNear = "a tcp eth=a>r:in ip=10.0.1.10>203.0.113.9 ports=4000>80 flags=S"

// A connection that stays on one host is known to the hosts of its ports' stateful port groups, and to no others: its answers come in there.
func TestSiblingsAreTold(t *testing.T) {
	for _, c := range []struct {
		name  string
		group []string
		told  int
	}{
		{"of the port that it leaves by", []string{"near", "world"}, 1},
		{"of the port that it comes in by", []string{"a", "world"}, 1},
		{"of another port", []string{"b", "world"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, twoExits)
			p.group(c.group...)
			p.h1.in(aToNear)
			if n := p.known(); n != [2]int{1, c.told} {
				t.Fatalf("connections %v", n)
			}
			if c.told == 0 {
				return
			}
			v, _ := packet.Parse(p.h1.sent[0].Frame, 1)
			p.h1.sent = nil
			k := v.Key
			eth := packet.Ether{Src: match.MAC{2, 5: 0xc}, Dst: k.EthSrc}
			if err := p.h2.dp.Inject("tap-world", fake.Packet{Frame: packet.BuildTCP(nil, eth, packet.IP{Src: k.Dst, Dst: k.Src},
				packet.TCP{SrcPort: k.DstPort, DstPort: k.SrcPort, Flags: packet.FlagSYN | packet.FlagACK}, nil)}); err != nil {
				t.Fatal(err)
			}
			p.turn()
			p.h1.expect("a < ")
			if x := p.h2.w.Counts(); x.Dropped != [drop.NumReasons]uint64{} {
				t.Errorf("dropped %v", x.Dropped)
			}
		})
	}
}

// The hosts of siblings hear of a connection as long as it is in use, and after they have begun anew.
func TestSiblingsAreToldAgain(t *testing.T) {
	p := newPair(t, twoExits)
	p.group("near", "world")
	p.h1.in("a udp eth=a>r:in ip=10.0.1.10>203.0.113.9 ports=4000>53")
	if n := p.known(); n != [2]int{1, 1} {
		t.Fatalf("connections %v", n)
	}
	for range 20 {
		for _, r := range []*rig{p.h1, p.h2} {
			r.advance(10 * time.Second)
			flows := r.dump()
			for i := range flows {
				flows[i].Idle = 0
			}
			r.w.Audit(flows)
		}
		p.turn()
	}
	if n := p.known(); n != [2]int{1, 1} {
		t.Errorf("after a while in use: connections %v", n)
	}
	p.h1.w.hello = func(from match.Addr) { p.h1.w.Do(func() { p.h1.w.TellHost(from) }) }
	p.h2.start(Config{Host: hostIDs[1]})
	p.join(p.h2, p.h1, 1, func(name string) bool { return name != "world" })
	p.h2.w.Do(func() { p.h2.w.Hello(p.h2.topo.Snapshot.Hosts[hostIDs[0]].Tunnel) })
	if n := p.known(); n != [2]int{1, 1} {
		t.Errorf("after a new beginning: connections %v", n)
	}
}

// A client comes back to its member, by whichever port of the group.
func TestSiblingsGiveTheSameMember(t *testing.T) {
	p := newPair(t, twoExits)
	p.group("near", "world")
	members := map[string]bool{}
	for i := range 8 {
		p.h1.in(fmt.Sprintf("near tcp eth=near>r:out ip=203.0.113.%d>203.0.113.80 ports=4000>80 flags=S", 100+i))
		p.turn()
		first := p.h1.got()
		p.h2.in(fmt.Sprintf("world tcp eth=near>r:out ip=203.0.113.%d>203.0.113.80 ports=4001>80 flags=S", 100+i))
		p.turn()
		second := p.h1.got()
		if len(first) != 1 || len(second) != 1 || first[0][:1] != second[0][:1] {
			t.Errorf("%q and then %q", first, second)
			continue
		}
		members[first[0][:1]] = true
	}
	if len(members) != 2 {
		t.Errorf("all clients are given one member: it may be by chance: %v", members)
	}
}
