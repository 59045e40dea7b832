package datapathtest

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

func pad(f []byte) []byte { return append(f, make([]byte, 64-min(64, len(f)))...) }

// samples are frames of every kind that the key tells apart.
func samples() map[string][]byte {
	tagged := eth
	tagged.VLAN = 0x6064 | match.VLANPresent
	ip4, ip6 := packet.IP{Src: ip4A, Dst: ip4B, TOS: 0x2e}, packet.IP{Src: ip6A, Dst: ip6B, TOS: 0x2e}
	first, later := udp4(1, 2), udp4(1, 2)
	first[20], later[21] = 0x20, 0x40
	llc := append(append([]byte{}, udp4(1, 2)[:12]...), 0, 40)
	return map[string][]byte{
		"udp4":           udp4(1000, 2000),
		"tcp4":           packet.BuildTCP(nil, eth, ip4, packet.TCP{SrcPort: 1, DstPort: 2, Flags: packet.FlagSYN}, data),
		"sctp4":          packet.BuildSCTP(nil, eth, ip4, 1, 2, 3, data),
		"echo4":          packet.BuildEchoRequest(nil, eth, ip4, 77, 1, data),
		"gre4":           packet.BuildIP(nil, eth, ip4, 47, data),
		"udp6":           packet.BuildUDP(nil, eth, ip6, 1, 2, data),
		"tcp6":           packet.BuildTCP(nil, eth, ip6, packet.TCP{SrcPort: 1, DstPort: 2}, data),
		"echo6":          packet.BuildEchoRequest(nil, eth, ip6, 77, 1, data),
		"ns":             packet.BuildNeighbourSolicitation(nil, macA, ip6A, ip6B),
		"options6":       packet.BuildIP(nil, eth, ip6, 60, append([]byte{17, 0, 1, 4, 0, 0, 0, 0, 0, 5, 0, 6, 0, 54, 0, 0}, data...)),
		"arp":            pad(packet.BuildARPRequest(nil, macA, ip4A, ip4B)),
		"tagged udp4":    packet.BuildUDP(nil, tagged, ip4, 1, 2, data),
		"tagged tcp6":    packet.BuildTCP(nil, tagged, ip6, packet.TCP{SrcPort: 1, DstPort: 2}, data),
		"first fragment": first,
		"later fragment": later,
		"802.3":          append(llc, data...),
		"full size":      packet.BuildUDP(nil, eth, ip4, 8, 9, make([]byte, 1472)),
	}
}

func missExact(b *bench) {
	p := b.port()
	for name, f := range samples() {
		grant(p, 1)
		b.send(p, f)
		m := b.read(1)[0]
		if want := b.key(p, f); m.Key != want {
			b.Errorf("%s:\n got %+v\nwant %+v", name, m.Key, want)
		}
		if !same(m.Frame, f) {
			b.Errorf("%s:\n got % x\nwant % x", name, m.Frame, f)
		}
		if m.Reason != datapath.MissNoFlow || m.GSO != (packet.GSO{}) {
			b.Errorf("%s: %v %+v", name, m.Reason, m.GSO)
		}
	}
	if s := b.stats(p); int(s.Admitted) != len(samples()) || int(s.RxPackets) != len(samples()) {
		b.Errorf("%d frames: %+v", len(samples()), s)
	}
}

func missBatch(b *bench) {
	p := b.port()
	for w := range b.dp.Workers() {
		for _, timeout := range []time.Duration{0, time.Millisecond} {
			if n, err := b.dp.ReadMisses(w, []*datapath.Miss{new(datapath.Miss)}, timeout); n != 0 || err != nil {
				b.Fatalf("nothing is there: %d %v", n, err)
			}
		}
	}
	grant(p, 50)
	var last int64
	for range 50 {
		b.send(p, udp4(1, 2))
	}
	for _, m := range b.read(50) { // one connection, so one worker, so in order
		if m.Time < last {
			b.Fatalf("time went back: %d after %d", m.Time, last)
		}
		last = m.Time
	}
	b.noMiss(p)
}

func missNoCredit(b *bench) {
	p := b.port()
	for i := range 10 {
		b.send(p, udp4(1, uint16(i)))
	}
	b.noMiss(p)
	s := b.stats(p)
	if s.Drops[drop.NoCredit] != 10 || s.Admitted != 1 || s.RxPackets != 11 { // with noMiss's own
		b.Errorf("%+v", s)
	}
	if atomic.LoadInt64(p.Credit) != 0 || atomic.LoadInt64(b.dp.RootCredit()) != 0 {
		b.Errorf("credit %d, root %d", *p.Credit, *b.dp.RootCredit())
	}
}

// missLent: a port has its own tokens first, then the root's, and each miss says whose it holds.
func missLent(b *bench) {
	p := b.port()
	grant(p, 2)
	atomic.AddInt64(b.dp.RootCredit(), 2)
	for range 5 {
		b.send(p, udp4(1, 1))
	}
	for i, m := range b.read(4) { // one connection, so in order
		if want := i >= 2 && !b.limits.LentUntold; m.Lent != want {
			b.Errorf("miss %d: lent %v", i, m.Lent)
		}
	}
	if s := b.stats(p); s.Drops[drop.NoCredit] != 1 || atomic.LoadInt64(p.Credit) != 0 || atomic.LoadInt64(b.dp.RootCredit()) != 0 {
		b.Errorf("%+v, credit %d, root %d", s, *p.Credit, *b.dp.RootCredit())
	}
}

// missNotReady: what a port sends before it is opened takes no token of anybody, and is told apart.
func missNotReady(b *bench) {
	p, q := b.closedPort(), b.port()
	atomic.AddInt64(b.dp.RootCredit(), 3)
	for i := range 4 {
		b.send(p, udp4(1, uint16(i)))
	}
	b.send(q, udp4(2, 1)) // the root has tokens
	if m := b.read(1)[0]; m.Key.InPort != q.No {
		b.Errorf("%+v", m.Key)
	}
	reason := drop.NotReady
	if b.limits.ClosedAsEmpty {
		reason = drop.NoCredit
	}
	if s := b.stats(p); s.Drops[reason] != 4 || s.Admitted != 0 || s.RxPackets != 4 {
		b.Errorf("%+v", s)
	}
	if n := atomic.LoadInt64(b.dp.RootCredit()); n != 2 || !htb.IsClosed(p.Credit) {
		b.Errorf("root has %d, the port %d", n, *p.Credit)
	}
	policy := htb.New(htb.Config{Global: 2, VM: 2, TunnelShare: 1, VTEPShare: 1, VMShare: 1}, b.dp.RootCredit())
	policy.Link("port", htb.VM, p.No, p.Credit)
	b.send(p, udp4(1, 9))
	b.read(1)
	if s, n := b.stats(p), atomic.LoadInt64(p.Credit); s.Admitted != 1 || n != 1 {
		b.Errorf("opened: %+v, %d tokens", s, n)
	}
	atomic.StoreInt64(p.Credit, 0) // the policy goes, and with it its tokens
}

func missLeafBeforeRoot(b *bench) {
	ps := b.ports(2)
	root := b.dp.RootCredit()
	grant(ps[0], 2)
	atomic.AddInt64(root, 2)
	for i, want := range []struct{ leaf, root int64 }{{1, 2}, {0, 2}, {0, 1}, {0, 0}} {
		b.send(ps[0], udp4(1, uint16(i)))
		b.read(1)
		if l, r := atomic.LoadInt64(ps[0].Credit), atomic.LoadInt64(root); l != want.leaf || r != want.root {
			b.Fatalf("after %d misses: leaf %d, root %d", i+1, l, r)
		}
	}
	b.send(ps[0], udp4(1, 99))
	atomic.AddInt64(root, 1) // anybody may take from the root
	b.send(ps[1], udp4(1, 5))
	if m := b.read(1)[0]; m.Key.InPort != ps[1].No {
		b.Errorf("%+v", m.Key)
	}
	if s := b.stats(ps[0]); s.Admitted != 4 || s.Drops[drop.NoCredit] != 1 {
		b.Errorf("%+v", s)
	}
}

func missConservation(b *bench) {
	ps := b.ports(2)
	grant(ps[0], 10)
	grant(ps[1], 3)
	atomic.AddInt64(b.dp.RootCredit(), 5)
	for i := range 20 {
		b.send(ps[0], udp4(1, uint16(i)))
		b.send(ps[1], udp4(2, uint16(i)))
	}
	b.read(18)
	b.noMiss(ps[0])
	var admitted, refused uint64
	for _, p := range ps {
		s := b.stats(p)
		admitted += s.Admitted
		refused += s.Drops[drop.NoCredit]
		if c := atomic.LoadInt64(p.Credit); c != 0 {
			b.Errorf("port %d has %d left", p.No, c)
		}
	}
	if admitted != 19 || refused != 22 || atomic.LoadInt64(b.dp.RootCredit()) != 0 {
		b.Errorf("admitted %d, refused %d, root %d", admitted, refused, *b.dp.RootCredit())
	}
}

func missAffinity(b *bench) {
	ps := b.ports(2)
	worker := map[match.Key]int{}
	used := map[int]bool{}
	run := func(p datapath.Port, f []byte) int {
		grant(p, 1)
		b.send(p, f)
		b.readAs(1, func(w int, m *datapath.Miss) { worker[m.Key] = w; used[w] = true })
		return worker[b.key(p, f)]
	}
	const connections = 24
	for i := range uint16(connections) {
		for _, ip := range []packet.IP{{Src: ip4A, Dst: ip4B}, {Src: ip6A, Dst: ip6B}} {
			back := packet.IP{Src: ip.Dst, Dst: ip.Src}
			q, r := 1000+i, 80+7*i
			request := packet.BuildEchoRequest(nil, eth, ip, q, 1, data)
			v, _ := packet.Parse(request, 1)
			for _, c := range [][2][]byte{
				{packet.BuildUDP(nil, eth, ip, q, r, data), packet.BuildUDP(nil, eth.Reverse(), back, r, q, data)},
				{packet.BuildTCP(nil, eth, ip, packet.TCP{SrcPort: q, DstPort: r}, data), packet.BuildTCP(nil, eth.Reverse(), back, packet.TCP{SrcPort: r, DstPort: q}, data)},
				{request, packet.BuildEchoReply(nil, &v)},
			} {
				k := b.key(ps[0], c[0])
				want := int(k.ConnectionHash()) % b.dp.Workers()
				if there, back := run(ps[0], c[0]), run(ps[1], c[1]); there != want || back != want {
					b.Fatalf("worker %d there, %d back, want %d: %+v", there, back, want, k)
				}
			}
		}
	}
	if b.dp.Workers() > 1 && len(used) < 2 {
		b.Error("all connections use one worker")
	}
}

func missMalformed(b *bench) {
	p := b.port()
	grant(p, 100)
	ihl, long, cut := udp4(1, 2), udp4(1, 2), udp4(1, 2)
	ihl[14] = 0x44
	long[16] = 0x7f
	cut[17], cut[16] = 27, 0
	tiny := packet.BuildIP(nil, eth, packet.IP{Src: ip4A, Dst: ip4B}, packet.ProtoTCP, data[:19])
	ext := packet.BuildIP(nil, eth, packet.IP{Src: ip6A, Dst: ip6B}, 60, bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 9))
	bad := [][]byte{ihl, long, cut, pad(tiny), ext}
	b.send(p, bad...)
	b.noMiss(p)
	s := b.stats(p)
	if int(s.Drops[drop.Malformed]) != len(bad) || s.Admitted != 1 {
		b.Errorf("%d malformed frames: %+v", len(bad), s)
	}
	if c := atomic.LoadInt64(p.Credit); c != 100 {
		b.Errorf("malformed frames took %d tokens", 100-c)
	}
}

// missWake: whether Wake comes before or while ReadMisses waits, it returns long before its timeout, and once.
func missWake(b *bench) {
	ms := []*datapath.Miss{new(datapath.Miss)}
	const never = 30 * time.Second // a test that waits so long has failed
	for _, before := range []bool{true, false} {
		woken := make(chan struct{})
		wake := func() { b.dp.Wake(0); close(woken) }
		if before {
			wake()
		} else {
			time.AfterFunc(20*time.Millisecond, wake)
		}
		start := time.Now()
		n, err := b.dp.ReadMisses(0, ms, never)
		<-woken
		if n != 0 || err != nil || time.Since(start) >= never {
			b.Errorf("woken before %v: read %d, %v, after %v", before, n, err, time.Since(start))
		}
	}
	start := time.Now()
	const short = 50 * time.Millisecond
	if n, err := b.dp.ReadMisses(0, ms, short); n != 0 || err != nil || time.Since(start) < short/2 {
		b.Errorf("nobody wakes: read %d, %v, after %v of %v", n, err, time.Since(start), short)
	}
}
