package datapathtest

import (
	"bytes"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

const (
	patience = 5 * time.Second       // for what must come
	glance   = 30 * time.Millisecond // for what must not come
)

// Locally administered unicast MACs, which no interface of the rig has: no
// kernel answers these frames.
var (
	macA = match.MAC{0x02, 0x76, 0, 0, 0, 0xa}
	macB = match.MAC{0x02, 0x76, 0, 0, 0, 0xb}
	macC = match.MAC{0x02, 0x76, 0, 0, 0, 0xc}
	eth  = packet.Ether{Dst: macB, Src: macA}

	ip4A, ip4B, ip4C = addr("10.99.0.1"), addr("10.99.0.2"), addr("10.99.7.3")
	ip6A, ip6B, ip6C = addr("fd99::1"), addr("fd99::2"), addr("fd99:7::3")
)

// data makes every frame longer than the 60 bytes that a device might pad to.
var data = []byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ")

func addr(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }

func udp4(srcPort, dstPort uint16) []byte {
	return packet.BuildUDP(nil, eth, packet.IP{Src: ip4A, Dst: ip4B}, srcPort, dstPort, data)
}

// bench is one datapath under test.
type bench struct {
	*testing.T
	dp   datapath.Datapath
	rig  Rig
	mark uint16 // makes each marker's key new

	limits Limits
}

// must fails the test on an error.
func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// port adds a VM port on a new interface, and opens it.
func (b *bench) port() datapath.Port {
	b.Helper()
	p := b.closedPort()
	if !htb.IsClosed(p.Credit) {
		b.Fatalf("a new port's cell holds %d", *p.Credit)
	}
	atomic.StoreInt64(p.Credit, 0)
	return p
}

func (b *bench) closedPort() datapath.Port {
	b.Helper()
	p, err := b.dp.AddPort(b.rig.NewPort(b), datapath.VM)
	b.must(err)
	return p
}

func (b *bench) ports(n int) (ps []datapath.Port) {
	b.Helper()
	for range n {
		ps = append(ps, b.port())
	}
	return ps
}

func (b *bench) send(p datapath.Port, frames ...[]byte) {
	b.Helper()
	for _, f := range frames {
		b.rig.Send(b, p.Interface, f)
	}
}

func grant(p datapath.Port, n int64) { atomic.AddInt64(p.Credit, n) }

// key is what the datapath must make of frame, coming in at p.
func (b *bench) key(p datapath.Port, frame []byte) match.Key {
	b.Helper()
	v, r := packet.Parse(frame, p.No)
	if r != drop.None {
		b.Fatalf("test frame: %v", r)
	}
	return v.Key
}

// put installs a flow for frame at p.
func (b *bench) put(p datapath.Port, frame []byte, as ...action.Action) match.Key {
	b.Helper()
	k := b.key(p, frame)
	n, err := b.dp.PutFlows([]datapath.Flow{{Key: k, Actions: as}})
	b.must(err)
	if n != 1 {
		b.Fatalf("PutFlows: %d of 1 without an error", n)
	}
	return k
}

// coarse reports whether the datapath may refuse flows for frame.
func (b *bench) coarse(p datapath.Port, frame []byte) bool {
	k := b.key(p, frame)
	return b.limits.Coarse != nil && b.limits.Coarse(&k)
}

// refused checks that a flow for frame is refused with err.
func (b *bench) refused(want error, p datapath.Port, frame []byte, as ...action.Action) {
	b.Helper()
	n, err := b.dp.PutFlows([]datapath.Flow{{Key: b.key(p, frame), Actions: as}})
	if n != 0 || !errors.Is(err, want) {
		b.Errorf("PutFlows: %d %v", n, err)
	}
}

func output(p datapath.Port) action.Action { return action.Action{Op: action.Output, Port: p.No} }

// expect waits for the very frame at p.
func (b *bench) expect(p datapath.Port, want []byte) {
	b.Helper()
	b.expectAs("frame", p, want)
}

// expectAs is expect with a name for what is tried.
func (b *bench) expectAs(name string, p datapath.Port, want []byte) {
	b.Helper()
	got, ok := b.rig.Recv(b, p.Interface, patience)
	if !ok {
		b.Errorf("%s: nothing came out of port %d", name, p.No)
		b.fatalState()
	}
	if !same(got, want) {
		b.Fatalf("%s at port %d:\n got % x\nwant % x", name, p.No, got, want)
	}
}

// fatalState ends the test with what the datapath says of itself.
func (b *bench) fatalState() {
	b.Helper()
	ps, err := b.dp.Ports()
	b.must(err)
	for _, p := range ps {
		b.Logf("port %d: %+v", p.No, b.stats(p))
	}
	for k, f := range b.flows() {
		b.Logf("flow %v: %+v", &k, f)
	}
	b.FailNow()
}

// same compares frames; got may be padded to Ethernet's minimum.
func same(got, want []byte) bool {
	if len(want) < 60 && len(got) == 60 {
		return bytes.HasPrefix(got, want)
	}
	return bytes.Equal(got, want)
}

// silent checks that nothing comes out of the ports.
func (b *bench) silent(ps ...datapath.Port) {
	b.Helper()
	for _, p := range ps {
		if f, ok := b.rig.Recv(b, p.Interface, glance); ok {
			b.Fatalf("port %d: came out: % x", p.No, f)
		}
	}
}

// read collects misses of all workers, in order per worker, until there are n.
func (b *bench) read(n int) (all []*datapath.Miss) {
	b.Helper()
	b.readAs(n, func(_ int, m *datapath.Miss) { all = append(all, m) })
	return all
}

func (b *bench) readAs(n int, fn func(worker int, m *datapath.Miss)) {
	b.Helper()
	var wait time.Duration // at first only look
	for deadline := time.Now().Add(patience); n > 0; {
		for w := range b.dp.Workers() {
			ms := make([]*datapath.Miss, 16)
			for i := range ms {
				ms[i] = new(datapath.Miss)
			}
			got, err := b.dp.ReadMisses(w, ms, wait)
			b.must(err)
			for _, m := range ms[:got] {
				fn(w, m)
			}
			n -= got
		}
		wait = glance / 10
		if n > 0 && time.Now().After(deadline) {
			b.Fatalf("%d misses did not come", n)
		}
	}
	if n < 0 {
		b.Fatalf("%d misses too many", -n)
	}
}

// noMiss checks that no packet of p is queued: one that must miss is
// the only one read.
func (b *bench) noMiss(p datapath.Port) {
	b.Helper()
	b.mark++
	f := udp4(60000, b.mark)
	grant(p, 1)
	b.send(p, f)
	if m := b.read(1)[0]; m.Key != b.key(p, f) {
		b.Fatalf("unexpected miss: %+v", m.Key)
	}
	for w := range b.dp.Workers() {
		n, err := b.dp.ReadMisses(w, []*datapath.Miss{new(datapath.Miss)}, 0)
		b.must(err)
		if n != 0 {
			b.Fatal("one more miss")
		}
	}
}

func (b *bench) stats(p datapath.Port) datapath.PortStats {
	b.Helper()
	s, err := b.dp.Stats(p.No)
	b.must(err)
	return s
}

// flows reads the table back.
func (b *bench) flows() map[match.Key]datapath.FlowInfo {
	b.Helper()
	all := map[match.Key]datapath.FlowInfo{}
	b.must(b.dp.DumpFlows(func(f *datapath.FlowInfo) bool {
		c := *f
		c.Actions = append(action.Physical{}, f.Actions...)
		all[f.Key] = c
		return true
	}))
	return all
}
