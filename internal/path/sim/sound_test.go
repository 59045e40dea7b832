package sim_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// In rich, a flood of a reaches routed ways too: c sits behind a bridge whose
// router's MAC a does not know.
const rich = `
bridge a
bridge b
bridge c
router r
router q
vm va a 02:00:00:00:00:0a 10.0.1.5 fd01::5
vm vb b 02:00:00:00:00:0b 10.0.2.5 fd02::5
vm vc a
vm vd a
vm ve c 02:00:00:00:00:0e 10.0.3.5
link a r=10.0.1.1/24,fd01::1/64
link b r=10.0.2.1/24,fd02::1/64
link r=100.64.0.1/30,fd64::1/64 q=100.64.0.2/30,fd64::2/64
link a c
link c q=10.0.3.1/24,fd03::1/64
uplink up q 02:00:00:00:01:00 203.0.113.2/24
route r 0.0.0.0/0 via 100.64.0.2 out r:q
route r ::/0 via fd64::2 out r:q
route r 10.9.0.0/16 blackhole
route r 10.8.0.0/16 reject
route q 0.0.0.0/0 via 203.0.113.1 out up
route q 10.0.0.0/16 via 100.64.0.1 out q:r
neighbour up 203.0.113.1 02:00:00:00:01:01
neighbour up 203.0.113.9 failed
mac a 02:00:00:00:00:0c vc
heard a 10.0.1.77 02:00:00:00:00:0c
mtu r:b 600
subnet a4 a 10.0.1.0/24 gw=10.0.1.1
subnet a6 a fd01::/64 gw=fd01::1 mode=stateful
subnet c4 c 10.0.3.0/24
`

// grouped is rich with security groups: both kinds, and rules of each sort.
const grouped = rich + `
secure va
secure vb
groups va web
groups vb web plain
groups ve
group outside 8.8.8.8 fd09::/16
stateless plain
allow web out
allow web out six proto=17 ports=53
allow web in proto=17 ports=50-60
allow web in proto=6 remote=web
allow web in proto=1 type=8
allow web in six proto=58 type=128 code=0 prefix=fd01::/64
allow web in six remote=web
allow plain in proto=17 ports=80 prefix=10.0.1.0/24
allow plain in six proto=17 ports=80-90
allow plain out proto=17 addresses=outside
`

// gen draws packets from small alphabets, so that collisions with the network happen.
type gen struct {
	t    *rapid.T
	topo *pathtest.Topology
}

func pick[T any](t *rapid.T, what string, xs ...T) T { return rapid.SampledFrom(xs).Draw(t, what) }

func (g gen) mac(what string) match.MAC {
	return g.topo.MAC(pick(g.t, what, "va", "vb", "ve", "up", "r:a", "r:b", "q:c", "q:r", "02:00:00:00:00:0c",
		"02:00:00:00:00:99", "r:a", "r:b", "q:c", "broadcast", "33:33:ff:00:00:01"))
}

func (g gen) addr(what string, six bool) match.Addr {
	if six {
		return addr(pick(g.t, what, "fd01::5", "fd02::5", "fd01::1", "fd02::1", "fd09::9", "fe80::5", "::", "ff02::1:ff00:1"))
	}
	return addr(pick(g.t, what, "10.0.1.5", "10.0.2.5", "10.0.3.5", "10.0.1.1", "10.0.1.1", "10.0.1.1", "10.0.2.1", "10.0.1.77", "10.0.2.9", "10.9.0.1",
		"10.8.0.1", "8.8.8.8", "203.0.113.9", "0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1"))
}

func (g gen) view() packet.View {
	t := g.t
	eth := packet.Ether{Src: g.mac("eth src"), Dst: g.mac("eth dst"), VLAN: pick(t, "vlan", uint16(0), 0, 0, match.VLANPresent, match.VLANPresent|7)}
	if rapid.Bool().Draw(t, "routed") { // else most packets would end at the first bridge
		eth = packet.Ether{Src: g.topo.MAC("va"), Dst: g.topo.MAC("r:a")}
	}
	kind := pick(t, "kind", "udp", "udp", "tcp", "icmp", "arp", "nd", "other")
	six := kind == "nd" || kind != "arp" && rapid.Bool().Draw(t, "six")
	ip := packet.IP{Src: g.addr("src", six), Dst: g.addr("dst", six), TTL: pick(t, "ttl", uint8(1), 2, 3, 64), TOS: pick(t, "tos", uint8(0), 8)}
	payload := make([]byte, pick(t, "len", 0, 700))
	var frame []byte
	switch kind {
	case "udp":
		frame = packet.BuildUDP(nil, eth, ip, pick(t, "sport", uint16(1), 0x0800), pick(t, "dport", uint16(53), 80, 53, 80, 53, 80, 67, 68, 546, 547), payload)
	case "tcp":
		frame = packet.BuildTCP(nil, eth, ip, packet.TCP{SrcPort: 1, DstPort: 2, Flags: pick(t, "flags", uint8(0), packet.FlagSYN, packet.FlagSYN, packet.FlagACK)}, payload)
	case "icmp":
		frame = packet.BuildICMP(nil, eth, ip, packet.ICMP{Type: pick(t, "type", uint8(8), 128, 0, 3, 8, 128, 0, 3, 133, 134), Rest: pick(t, "id", uint32(1)<<16, 2<<16)}, payload)
	case "arp":
		frame = packet.BuildARP(nil, eth, packet.ARP{Op: pick(t, "op", uint16(1), 2, 3), SHA: eth.Src, SPA: ip.Src, TPA: ip.Dst})
	case "nd":
		frame = packet.BuildND(nil, eth, ip.Src, ip.Dst, packet.ND{Advert: rapid.Bool().Draw(t, "advert"), Target: g.addr("target", true), LLA: eth.Src, HasLLA: true})
	default:
		frame = append(append(append(frame, eth.Dst[:]...), eth.Src[:]...), 0x88, 0xb5, 1, 2, 3, 4)
	}
	v, why := packet.Parse(frame, 1)
	if why != drop.None {
		t.Fatalf("built a packet that does not parse: %s", why)
	}
	fragment(t, &v)
	return v
}

// mutate gives v what other has in every field outside the mask, and other's TTL and length. Only the
// simulator's view is changed: the frame itself is read for user space alone.
func mutate(v, other packet.View, m match.Mask) packet.View {
	kept, free := m.Apply(&v.Key), (match.All&^m | match.InPort).Apply(&other.Key)
	if m&match.DHCP != 0 && (kept.DstPort != 0 || match.DHCPPort(free.DstPort) != 0) {
		free.DstPort = 0 // it is not free but for a port that is none of DHCP's, among such
	}
	for i, x := range free.Bytes() {
		kept.Bytes()[i] |= x
	}
	kept.InPort = v.Key.InPort
	v.Key, v.TTL = kept, other.TTL
	if n := other.L3Len - v.L3Len; v.L3Len > 0 && n > 0 {
		v.Frame = append(slices.Clone(v.Frame), make([]byte, n)...)
	}
	if v.L3Len > 0 {
		v.L3Len = other.L3Len
	}
	return v
}

// maxLen is the longest IP packet that the actions are for.
func maxLen(as action.Virtual) int {
	if len(as) > 0 && as[0].Op == action.CheckLen {
		return int(as[0].Value)
	}
	return math.MaxInt
}

func ttlCost(as action.Virtual) (n uint8) {
	for i := range as {
		if as[i].Op == action.DecTTL {
			n++
		}
	}
	return n
}

// TestMaskIsSound: a flow that is installed for one packet does to every packet that matches it
// what the simulator would have done.
func TestMaskIsSound(t *testing.T) {
	for name, text := range map[string]string{"plain": rich, "groups": grouped, "mirrors": mirrored + "dscp va 46\n"} {
		t.Run(name, func(t *testing.T) { maskIsSound(t, text, name == "groups") })
	}
}

func maskIsSound(t *testing.T, text string, groups bool) {
	topo := pathtest.MustParse(text)
	var a, b sim.Context
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		for range 100 { // packets to one test, so that the default number of tests suffices
			g := gen{t, topo}
			in := pathtest.Injection{Port: pathtest.ID(pick(t, "port", "va", "vb", "vc", "ve", "up")), View: g.view()}
			topo.State.Remember(&in)
			topo.Simulate(&a, &in)
			seen[fmt.Sprint(a.Result, " ", a.Reason)]++
			if a.Result == sim.ResultForward {
				topo.State.Commit(&a) // as before a flow is installed
			}
			if a.Result != sim.ResultConsumed && a.Result != sim.ResultNotYet && !a.UserSpace {
				checkTwin(t, topo, &a, &b, in, mutate(in.View, g.view(), a.Mask))
			}
		}
	})
	wants := []string{"forward none", "consumed none", "not yet none", "drop dhcp_spoofed", "error drop ttl_expired", "drop blackhole"}
	if groups {
		wants = []string{"forward none", "drop group_drop", "drop connection_invalid", "drop spoofed_ip"}
	}
	for _, want := range wants {
		if seen[want] == 0 && !testing.Short() { // few packets may miss it
			t.Errorf("no packet ended as %q: the generator has become too narrow", want)
		}
	}
	t.Log(seen)
}

func checkTwin(t *rapid.T, topo *pathtest.Topology, a, b *sim.Context, in pathtest.Injection, twin packet.View) {
	if in.View.TTL > 0 && twin.TTL <= ttlCost(a.Actions) {
		return // misses: the datapath looks at the TTL itself
	}
	if twin.L3Len > maxLen(a.Actions) {
		return // and at the length
	}
	v := in.View
	in.View = twin
	topo.Simulate(b, &in)
	dropped := a.Result != sim.ResultForward
	if dropped && (b.Reason == drop.TTLExpired || b.Reason == drop.ExceedsMTU) {
		return // dropped either way; only the error message is missed
	}
	as, bs := a.Actions, b.Actions
	if b.UserSpace && maxLen(bs) == math.MaxInt && maxLen(as) < math.MaxInt {
		as = as[1:] // its TTL expires on a way that ends for the other one too, behind a port with an MTU; only the error message is missed
	}
	if a.Result != b.Result || a.Reason != b.Reason || !slices.Equal(as, bs) {
		t.Fatalf("mask %s\nkey  %+v\n%s %s %+v\ntwin %+v\n%s %s %+v", a.Mask,
			v.Key, a.Result, a.Reason, a.Actions, twin.Key, b.Result, b.Reason, b.Actions)
	}
}
