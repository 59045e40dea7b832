package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// pair is two hosts with a wire between them. World is on the second one, everybody else on the first.
type pair struct {
	*testing.T
	h1, h2 *rig
	lose   func(s fake.Sent) bool // on the wire; nil: nothing
	told   int                    // messages about connections that were carried
}

var hostIDs = [2]uuid.UUID{{1, 0xa}, {1, 0xb}}

func newPair(t *testing.T, network string) *pair {
	p := &pair{T: t}
	p.h1, p.h2 = newRig(t, network, Config{Host: hostIDs[0]}), newRig(t, network, Config{Host: hostIDs[1]})
	p.join(p.h1, p.h2, 0, func(name string) bool { return name == "world" })
	p.join(p.h2, p.h1, 1, func(name string) bool { return name != "world" })
	return p
}

// join gives r a tunnel to its peer, where the ports are of which far is true.
func (p *pair) join(r, peer *rig, i int, far func(name string) bool) {
	r.topo.Snapshot.Hosts = map[uuid.UUID]*view.Host{hostIDs[1-i]: {ID: hostIDs[1-i], Tunnel: match.Addr{10: 0xff, 11: 0xff, 15: byte(2 - i)}}}
	if !r.tunnelled {
		r.dp.AddInterface("vxlan", 1500)
		r.tunnelled = true
	}
	tunnel, err := r.dp.AddPort("vxlan", datapath.Tunnel)
	if err != nil {
		p.Fatal(err)
	}
	r.tunnelLeaf(tunnel)
	r.ports = r.ports.WithTunnel(tunnel.No)
	for id, v := range r.topo.Ports {
		if !v.Exterior() {
			continue
		}
		c := *v
		c.TunnelKey = uint32(id[0]) + 1
		if far(v.Name) {
			c.Host = hostIDs[1-i]
			r.ports = r.ports.Without(id)
		} else {
			c.Host = hostIDs[i]
			no, _ := r.ports.Local(id)
			if err := r.dp.SetTunnelKey(c.TunnelKey, no); err != nil {
				p.Fatal(err)
			}
		}
		r.topo.Ports[id] = &c
	}
	r.w.SetPorts(r.ports)
	r.w.SetTopology(&r.topo.Snapshot)
	deliver := r.deliver
	r.dp.OnSend(func(s fake.Sent) {
		if !s.Tunnel {
			deliver(s)
			return
		}
		if p.lose != nil && p.lose(s) {
			return
		}
		if s.Key == replicate.Key {
			p.told++
		}
		if err := peer.dp.Inject("vxlan", fake.Packet{Frame: append([]byte(nil), s.Frame...), TunKey: s.Key}); err != nil {
			p.Error(err)
		}
	})
}

func (p *pair) turn() {
	p.Helper()
	for range 3 {
		p.h1.turn()
		p.h2.turn()
	}
}

// reply has world answer the packet that it got, with TCP flags if it is one of TCP.
func (p *pair) reply(flags uint8) {
	p.Helper()
	sent := p.h2.sent
	if len(sent) == 0 {
		p.Fatalf("world got nothing; drops of h1 %v", p.h1.w.Counts().Dropped)
	}
	v, _ := packet.Parse(sent[len(sent)-1].Frame, 1)
	k := &v.Key
	p.h2.sent = nil
	eth, ip := v.Ether().Reverse(), packet.IP{Src: k.Dst, Dst: k.Src}
	frame := packet.BuildTCP(nil, eth, ip, packet.TCP{SrcPort: k.DstPort, DstPort: k.SrcPort, Flags: flags}, nil)
	if k.Proto == packet.ProtoUDP {
		frame = packet.BuildUDP(nil, eth, ip, k.DstPort, k.SrcPort, nil)
	}
	if err := p.h2.dp.Inject("tap-world", fake.Packet{Frame: frame}); err != nil {
		p.Fatal(err)
	}
	p.turn()
}

// The answer to a translated connection enters at the other host, which knows it before the first packet is delivered.
func TestAnswerAtAnotherHost(t *testing.T) {
	p := newPair(t, gateway)
	p.h1.in(aToWorld + " flags=S")
	p.turn()
	if n := p.h2.tables.Stats().Connections; n != 1 {
		t.Fatalf("the other host knows of %d connections", n)
	}
	p.reply(packet.FlagSYN | packet.FlagACK)
	p.h1.expect("a < ")
	if n := p.h1.w.Unacknowledged() + p.h2.w.Unacknowledged(); n != 0 {
		t.Errorf("%d messages are not acknowledged", n)
	}
	for _, r := range []*rig{p.h1, p.h2} {
		if c := r.w.Counts(); c.Dropped != [drop.NumReasons]uint64{} {
			t.Errorf("dropped: %v", c.Dropped)
		}
	}
	// Nobody decides twice: what came out of the tunnel was no miss, but for the messages.
	told := p.told
	p.h1.in(aToWorld + " flags=A")
	p.turn()
	if p.told != told {
		t.Errorf("%d messages about a connection that both know", p.told-told)
	}
}

// A message that is lost is sent again.
func TestLostMessage(t *testing.T) {
	p := newPair(t, gateway)
	lost := 0
	p.lose = func(s fake.Sent) bool {
		if h, _, err := replicate.Parse(s.Frame); s.Key == replicate.Key && err == nil && h.Kind == replicate.Conns && lost < 2 {
			lost++
			return true
		}
		return false
	}
	p.h1.in(aToWorld + " flags=S")
	p.turn()
	if n := p.h2.tables.Stats().Connections; n != 0 {
		t.Fatalf("%d connections: nothing was lost", n)
	}
	for i := range 3 {
		p.h1.clk.Advance(time.Duration(resendAfter << i))
		p.turn()
	}
	if n := p.h2.tables.Stats().Connections; n != 1 || lost != 2 {
		t.Errorf("%d connections after %d losses", n, lost)
	}
	p.reply(packet.FlagSYN | packet.FlagACK)
	p.h1.expect("a < ")
}

// A peer that has gone costs a bounded time of trying.
func TestPeerGone(t *testing.T) {
	p := newPair(t, gateway)
	p.lose = func(s fake.Sent) bool { return true }
	p.h1.in(aToWorld + " flags=S")
	p.turn()
	sent := p.h1.w.Counts().Made
	for range 20 * resendAtMost {
		p.h1.clk.Advance(time.Duration(resendAfter))
		p.turn()
	}
	if n := p.h1.w.Unacknowledged(); n != 0 {
		t.Errorf("%d messages are still being sent", n)
	}
	if n := p.h1.w.Counts().Made - sent; n != resendAtMost-1 {
		t.Errorf("sent again %d times", n)
	}
}

// A host whose agent begins anew asks, and is told what it needs for the answers.
func TestHello(t *testing.T) {
	p := newPair(t, gateway)
	p.h1.in(aToWorld+" flags=S", strings.Replace(aToWorld, "4000", "4001", 1)+" flags=S")
	p.turn()
	p.h1.w.hello = func(from match.Addr) { p.h1.w.Do(func() { p.h1.w.TellHost(from) }) }
	sent := p.h2.sent
	p.h2.start(Config{Host: hostIDs[1]})
	p.join(p.h2, p.h1, 1, func(name string) bool { return name != "world" })
	p.h2.sent = sent
	p.h2.w.Do(func() { p.h2.w.Hello(p.h2.topo.Snapshot.Hosts[hostIDs[0]].Tunnel) })
	p.turn()
	if n := p.h2.tables.Stats().Connections; n != 2 {
		t.Fatalf("after hello the host knows of %d connections", n)
	}
	p.reply(packet.FlagSYN | packet.FlagACK)
	p.h1.expect("a < ")
}

// A host that has taken ports tells so, in as many messages as it takes; nobody acknowledges it.
func TestOwned(t *testing.T) {
	p := newPair(t, gateway)
	heard := map[replicate.Owned]bool{}
	p.h1.w.owns = func(port, host uuid.UUID, revision int64) {
		if host != hostIDs[1] {
			t.Errorf("%s says so", host)
		}
		heard[replicate.Owned{Port: port, Revision: revision}] = true
	}
	var ports []replicate.Owned
	for i := range replicate.MaxOwned + 1 {
		ports = append(ports, replicate.Owned{Port: uuid.UUID{byte(i)}, Revision: 7})
	}
	p.h2.w.Do(func() { p.h2.w.TellOwned(p.h2.topo.Snapshot.Hosts[hostIDs[0]].Tunnel, ports) })
	p.turn()
	if len(heard) != len(ports) || p.h2.w.Unacknowledged() != 0 {
		t.Errorf("%d of %d ports were heard of; %d messages wait", len(heard), len(ports), p.h2.w.Unacknowledged())
	}
}

// Each host sees one direction of TCP's end; together they end it.
func TestTCPEndsAtBoth(t *testing.T) {
	p := newPair(t, gateway)
	p.h1.in(aToWorld + " flags=S")
	p.turn()
	p.reply(packet.FlagSYN | packet.FlagACK)
	for _, r := range []*rig{p.h1, p.h2} {
		flows := r.dump()
		for i := range flows {
			flows[i].TCPFlags, flows[i].Idle = packet.FlagFIN, 10*time.Second
		}
		r.w.Audit(flows)
		p.turn()
	}
	for i, r := range []*rig{p.h1, p.h2} {
		if n, f := r.tables.Stats().Connections, r.flows(); n != 0 || f != 0 {
			t.Errorf("host %d: %d connections, %d flows", i+1, n, f)
		}
	}
}

// What is in use at one host lives as long at the other, though the other sees none of it.
func TestRefresh(t *testing.T) {
	p := newPair(t, gateway)
	p.h1.in("a udp eth=a>r:in ip=10.0.1.10>203.0.113.9 ports=4000>53")
	p.turn()
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
	if n := p.h2.tables.Stats().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
}

// What nobody understands is dropped by name.
func TestBadMessage(t *testing.T) {
	p := newPair(t, gateway)
	stranger := replicate.Begin(nil, &replicate.Header{Kind: replicate.Hello, Host: uuid.UUID{9}, Workers: 1}, 0)
	for _, frame := range [][]byte{stranger, stranger[:20], packet.BuildUDP(nil, packet.Ether{}, packet.IP{Src: match.Addr{10: 0xff, 11: 0xff, 15: 1}, Dst: match.Addr{10: 0xff, 11: 0xff, 15: 2}}, 1, 2, nil)} {
		if err := p.h1.dp.Inject("vxlan", fake.Packet{Frame: frame, TunKey: replicate.Key}); err != nil {
			t.Fatal(err)
		}
	}
	p.turn()
	if n := p.h1.w.Counts().Dropped[drop.BadMessage]; n != 3 {
		t.Errorf("%d dropped: %v", n, p.h1.w.Counts().Dropped)
	}
}

// What is sent again leaves at once, whether or not a packet comes after it.
func TestResentAtOnce(t *testing.T) {
	p := newPair(t, gateway)
	lost := 0
	p.lose = func(s fake.Sent) bool {
		if s.Key == replicate.Key && lost < 1 {
			lost++
			return true
		}
		return false
	}
	p.h1.in(aToWorld + " flags=S")
	p.turn()
	p.h1.clk.Advance(time.Duration(resendAfter))
	if err := p.h1.w.Turn(0); err != nil {
		t.Fatal(err)
	}
	if p.told != 1 {
		t.Errorf("%d messages after %d was lost", p.told, lost)
	}
	p.turn()
}
