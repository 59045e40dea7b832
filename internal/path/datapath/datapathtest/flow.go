package datapathtest

import (
	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

func flowForward(b *bench) {
	ps := b.ports(2)
	n := uint64(0)
	for name, f := range samples() {
		if b.coarse(ps[0], f) {
			continue
		}
		n += 3
		k := b.put(ps[0], f, output(ps[1]))
		for range 3 {
			b.send(ps[0], f)
			b.expect(ps[1], f)
		}
		if info := b.flows()[k]; info.Packets != 3 || k.VLAN == 0 && info.Bytes != 3*uint64(len(f)) {
			b.Errorf("%s: %d packets, %d bytes", name, info.Packets, info.Bytes)
		}
	}
	b.noMiss(ps[0])
	in, out := b.stats(ps[0]), b.stats(ps[1])
	if in.RxPackets != n+1 || in.Admitted != 1 || out.TxPackets != n || out.RxPackets != 0 {
		b.Errorf("in %+v\nout %+v", in, out)
	}
}

func flowDrop(b *bench) {
	ps := b.ports(2)
	f := udp4(1, 2)
	k := b.put(ps[0], f)
	b.send(ps[0], f, f)
	b.noMiss(ps[0])
	b.silent(ps[1])
	info, ok := b.flows()[k]
	if !ok || info.Packets != 2 || len(info.Actions) != 0 {
		b.Errorf("%v %+v", ok, info)
	}
	if s := b.stats(ps[0]); s.Drops[drop.FlowDrop] != 2 && !b.limits.DropsUncounted {
		b.Errorf("%+v", s)
	}
}

func flowFlood(b *bench) {
	ps := b.ports(4)
	f := udp4(1, 2)
	copy(f, match.Broadcast[:])
	b.put(ps[0], f, output(ps[1]), output(ps[2]), output(ps[3]))
	b.send(ps[0], f)
	for _, p := range ps[1:] {
		b.expect(p, f)
		if s := b.stats(p); s.TxPackets != 1 {
			b.Errorf("port %d: %+v", p.No, s)
		}
	}
	b.silent(ps...)
}

func flowCumulative(b *bench) {
	ps := b.ports(4)
	f := udp4(1, 2)
	b.put(ps[0], f, action.Action{Op: action.DecTTL},
		output(ps[1]),
		action.Action{Op: action.SetDst, Addr: ip4C}, output(ps[2]),
		action.Action{Op: action.SetEthDst, MAC: macC}, action.Action{Op: action.SetDstPort, Value: 53}, output(ps[3]))
	b.send(ps[0], f)
	ip := packet.IP{Src: ip4A, Dst: ip4B, TTL: 63}
	b.expect(ps[1], packet.BuildUDP(nil, eth, ip, 1, 2, data))
	ip.Dst = ip4C
	b.expect(ps[2], packet.BuildUDP(nil, eth, ip, 1, 2, data))
	b.expect(ps[3], packet.BuildUDP(nil, packet.Ether{Dst: macC, Src: macA}, ip, 1, 53, data))
}

// flowLateTTL: a TTL decremented between two outputs.
func flowLateTTL(b *bench) {
	ps := b.ports(4)
	f := udp4(1, 2)
	as := []action.Action{
		output(ps[1]),
		{Op: action.SetDst, Addr: ip4C}, output(ps[2]),
		{Op: action.SetEthDst, MAC: macC}, {Op: action.DecTTL}, {Op: action.SetDstPort, Value: 53}, output(ps[3])}
	if b.limits.LateTTL {
		b.refused(datapath.ErrActions, ps[0], f, as...)
		es := []datapath.Exec{{Frame: udp4(1, 2), InPort: ps[0].No, Actions: as}}
		b.dp.Execute(es)
		b.must(es[0].Err)
	} else {
		b.put(ps[0], f, as...)
		b.send(ps[0], f)
	}
	ip := packet.IP{Src: ip4A, Dst: ip4C}
	b.expect(ps[1], f)
	b.expect(ps[2], packet.BuildUDP(nil, eth, ip, 1, 2, data))
	ip.TTL = 63
	b.expect(ps[3], packet.BuildUDP(nil, packet.Ether{Dst: macC, Src: macA}, ip, 1, 53, data))
}

// flowCoarse: packets of keys that the datapath does not tell apart have no flow, they miss each time.
func flowCoarse(b *bench) {
	ps := b.ports(2)
	for name, f := range samples() {
		if !b.coarse(ps[0], f) {
			continue
		}
		b.refused(datapath.ErrKey, ps[0], f, output(ps[1]))
		for range 2 {
			grant(ps[0], 1)
			b.send(ps[0], f)
			if m := b.read(1)[0]; m.Key != b.key(ps[0], f) || m.Reason != datapath.MissNoFlow {
				b.Errorf("%s: %+v", name, m)
			}
		}
	}
	b.silent(ps[1])
	if n := len(b.flows()); n != 0 {
		b.Errorf("%d flows", n)
	}
}

func flowTTL(b *bench) {
	ps := b.ports(2)
	for _, ip := range []packet.IP{{Src: ip4A, Dst: ip4B}, {Src: ip6A, Dst: ip6B}} {
		frame := func(ttl uint8) []byte {
			ip.TTL = ttl
			return packet.BuildUDP(nil, eth, ip, 1, 2, data)
		}
		for hops := uint8(1); hops <= 2; hops++ {
			as := make([]action.Action, hops, 3)
			for i := range as {
				as[i].Op = action.DecTTL
			}
			b.put(ps[0], frame(9), append(as, output(ps[1]))...)
			for _, ttl := range []uint8{255, 64, hops + 1} {
				b.send(ps[0], frame(ttl))
				b.expect(ps[1], frame(ttl-hops))
			}
			grant(ps[0], 1)
			b.send(ps[0], frame(hops))
			m := b.read(1)[0]
			if m.Reason != datapath.MissTTL || !same(m.Frame, frame(hops)) || m.Key != b.key(ps[0], frame(9)) {
				b.Errorf("%+v", m)
			}
			b.send(ps[0], frame(hops)) // no credit
		}
	}
	b.silent(ps[1])
	if s := b.stats(ps[0]); s.Drops[drop.NoCredit] != 4 || s.Admitted != 4 {
		b.Errorf("%+v", s)
	}
}

// flowLength: of packets that are longer than those of a flow, the datapath knows nothing. It is the IP packet that counts, without tags.
func flowLength(b *bench) {
	ps := b.ports(3)
	const most = 1000
	tagged := eth
	tagged.VLAN = 0x6064 | match.VLANPresent
	misses := uint64(0)
	for _, e := range []packet.Ether{eth, tagged} {
		for _, ip := range []packet.IP{{Src: ip4A, Dst: ip4B}, {Src: ip6A, Dst: ip6B}} {
			frame := func(ttl uint8, n int) []byte { // whose IP packet has n bytes
				ip.TTL = ttl
				v, _ := packet.Parse(packet.BuildUDP(nil, e, ip, 1, 2, nil), 0)
				return packet.BuildUDP(nil, e, ip, 1, 2, make([]byte, n-v.L3Len))
			}
			check, ttl := action.Action{Op: action.CheckLen, Value: most}, action.Action{Op: action.DecTTL}
			for _, as := range [][]action.Action{{check, ttl, output(ps[1])}, {check, ttl, output(ps[1]), output(ps[2])}} {
				k := b.put(ps[0], frame(9, 100), as...)
				for _, n := range []int{100, most} {
					b.send(ps[0], frame(9, n))
					for i := range as[2:] {
						b.expect(ps[1+i], frame(8, n))
					}
				}
				grant(ps[0], 1)
				b.send(ps[0], frame(9, most+1))
				if m := b.read(1)[0]; m.Reason != datapath.MissMTU || !same(m.Frame, frame(9, most+1)) || m.Key != k {
					b.Errorf("%+v", m)
				}
				b.send(ps[0], frame(9, most+1)) // no credit
				misses++
			}
		}
	}
	b.silent(ps...)
	if s := b.stats(ps[0]); s.Drops[drop.NoCredit] != misses || s.Admitted != misses {
		b.Errorf("%+v", s)
	}
}

func flowFragments(b *bench) {
	ps := b.ports(2)
	first, later := samples()["first fragment"], samples()["later fragment"]
	b.put(ps[0], first, output(ps[1]))
	b.put(ps[0], later, action.Action{Op: action.SetEthDst, MAC: macC}, output(ps[1]))
	b.send(ps[0], first, later)
	b.expect(ps[1], first)
	copy(later, macC[:])
	b.expect(ps[1], later)
}

func flowReplace(b *bench) {
	ps := b.ports(3)
	f := udp4(1, 2)
	b.put(ps[0], f, output(ps[1]))
	b.send(ps[0], f)
	b.expect(ps[1], f)
	b.put(ps[0], f, output(ps[2]))
	b.send(ps[0], f)
	b.expect(ps[2], f)
	b.put(ps[0], f, output(ps[1]), output(ps[2])) // one output becomes several
	b.send(ps[0], f)
	b.expect(ps[1], f)
	b.expect(ps[2], f)
	b.put(ps[0], f) // and none
	b.send(ps[0], f)
	b.silent(ps[1], ps[2])
	if n := len(b.flows()); n != 1 {
		b.Errorf("%d flows", n)
	}
}

func flowDelete(b *bench) {
	ps := b.ports(3)
	f, g := udp4(1, 2), udp4(1, 3)
	k := b.put(ps[0], f, output(ps[1]))
	b.put(ps[0], g, output(ps[1]), output(ps[2]))
	b.must(b.dp.DelFlows([]match.Key{k, b.key(ps[0], udp4(7, 7)), k}))
	grant(ps[0], 1)
	b.send(ps[0], f, g)
	if m := b.read(1)[0]; m.Key != k {
		b.Errorf("%+v", m.Key)
	}
	b.expect(ps[1], g)
	b.expect(ps[2], g)
	b.must(b.dp.DelFlows([]match.Key{b.key(ps[0], g)}))
	b.must(b.dp.DelFlows(nil))
	if n := len(b.flows()); n != 0 {
		b.Errorf("%d flows", n)
	}
}

func flowOutputGone(b *bench) {
	ps := b.ports(3)
	f := udp4(1, 2)
	b.put(ps[0], f, output(ps[1]))
	b.must(b.dp.DelPort(ps[1].No))
	b.send(ps[0], f)
	b.noMiss(ps[0])
	if s := b.stats(ps[0]); s.Drops[drop.OutputGone] != 1 && !b.limits.DropsUncounted {
		b.Errorf("%+v", s)
	}
	g := udp4(3, 4) // the others of a list still get theirs
	b.put(ps[0], g, output(ps[1]), output(ps[2]))
	b.send(ps[0], g)
	b.expect(ps[2], g)
}
