package ebpf

import (
	"bytes"
	"errors"
	"math/rand"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Verdicts of the program; linux/pkt_cls.h.
const (
	actShot     = 2
	actRedirect = 7
)

// bench runs the program on frames (BPF_PROG_TEST_RUN), as if they came in on the loopback device.
type bench struct {
	*Datapath
	port datapath.Port
	miss datapath.Miss
}

func newBench(t testing.TB) *bench {
	opts := testOptions(t)
	opts.Workers = 1
	b := &bench{Datapath: openTest(t, opts)}
	var err error
	if b.port, err = b.AddPort("lo", datapath.VM); err != nil {
		t.Fatal(err)
	}
	atomic.StoreInt64(b.port.Credit, 0)
	return b
}

// run returns the verdict and the frame as the program left it.
func (b *bench) run(t testing.TB, frame []byte) (uint32, []byte) {
	t.Helper()
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256)}
	v, err := b.progs.ViaductIngress.Run(&o)
	if err != nil {
		t.Fatalf("run on % x: %v", frame, err)
	}
	return v, o.DataOut
}

// parse returns the key under which frame misses, false when the program calls it malformed.
func (b *bench) parse(t testing.TB, frame []byte) (match.Key, bool) {
	t.Helper()
	before := b.count(t)
	atomic.StoreInt64(b.RootCredit(), 1)
	if v, _ := b.run(t, frame); v != actShot {
		t.Fatalf("verdict %d on % x", v, frame)
	}
	n, err := b.ReadMisses(0, []*datapath.Miss{&b.miss}, 0)
	if err != nil {
		t.Fatal(err)
	}
	malformed := b.count(t).Drops[drop.Malformed] - before.Drops[drop.Malformed]
	if uint64(n)+malformed != 1 {
		t.Fatalf("%d misses, %d malformed: % x", n, malformed, frame)
	}
	if n == 1 && !bytes.Equal(b.miss.Frame, frame) {
		t.Fatalf("frame came up as\n% x, was\n% x", b.miss.Frame, frame)
	}
	if left := atomic.LoadInt64(b.RootCredit()); left != int64(malformed) {
		t.Fatalf("credit %d after %d misses", left, n)
	}
	return b.miss.Key, n == 1
}

func (b *bench) count(t testing.TB) datapath.PortStats {
	t.Helper()
	s, err := b.Stats(b.port.No)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// runnable reports whether BPF_PROG_TEST_RUN takes the frame: it refuses those with less than an IP header.
func runnable(f []byte) bool {
	switch min := len(f) - packet.EthLen; uint16(f[12])<<8 | uint16(f[13]) {
	case packet.EthTypeIPv4:
		return min >= packet.IPv4Len
	case packet.EthTypeIPv6:
		return min >= packet.IPv6Len
	}
	return true
}

// seeds are frames of every kind that the parser tells apart.
func seeds() (fs [][]byte) {
	ip := func(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }
	data := []byte("some payload of some length")
	for _, eth := range []packet.Ether{
		{Dst: match.MAC{2, 0, 0, 0, 0, 2}, Src: match.MAC{2, 0, 0, 0, 0, 1}},
		{Dst: match.Broadcast, Src: match.MAC{2, 0, 0, 0, 0, 1}, VLAN: 7 | match.VLANPresent},
	} {
		for _, h := range []packet.IP{{Src: ip("10.1.2.3"), Dst: ip("10.3.2.1")}, {Src: ip("fd00::1"), Dst: ip("fd00:1::2")}} {
			fs = append(fs,
				packet.BuildUDP(nil, eth, h, 1000, 53, data),
				packet.BuildTCP(nil, eth, h, packet.TCP{SrcPort: 1, DstPort: 2}, data),
				packet.BuildSCTP(nil, eth, h, 5, 6, 7, data),
				packet.BuildEchoRequest(nil, eth, h, 9, 1, data),
				packet.BuildIP(nil, eth, h, 47, data))
			if h.Src.Is4() {
				continue
			}
			tcp := packet.BuildTCP(nil, eth, h, packet.TCP{SrcPort: 1, DstPort: 2}, data)
			tcp = tcp[len(tcp)-len(data)-packet.TCPLen:]
			for _, ext := range [][]byte{
				{6, 0, 0, 0, 0, 0, 0, 0},
				{43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0},
				{44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 9},
				{51, 0, 0, 0, 0, 0, 0, 0, 60, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0},
				bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 0}, 8),
			} {
				fs = append(fs, packet.BuildIP(nil, eth, h, 0, append(ext[:len(ext):len(ext)], tcp...)))
			}
		}
		arp := packet.BuildIP(nil, eth, packet.IP{Src: ip("10.1.2.3"), Dst: ip("10.3.2.1")}, 6, data)
		at := bytes.Index(arp, []byte{8, 0, 0x45})
		body := []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 10, 3, 2, 1}
		fs = append(fs, append(arp[:at:at], body...))
	}
	return fs
}

// mutate changes some bytes, mostly of headers, and sometimes the length.
func mutate(r *rand.Rand, frame []byte) []byte {
	f := append([]byte{}, frame...)
	for range r.Intn(4) {
		at := 12 + r.Intn(min(len(f), 90)-12)
		switch r.Intn(3) {
		case 0:
			f[at] = byte(r.Int())
		case 1:
			f[at] ^= 1 << r.Intn(8)
		case 2:
			next := []byte{0, 1, 6, 17, 43, 44, 51, 58, 59, 60, 132, 0x45, 0x60, 0x81, 0x88, 0xa8}
			f[at] = next[r.Intn(len(next))]
		}
	}
	switch r.Intn(4) {
	case 0:
		f = f[:15+r.Intn(len(f)-15)]
	case 1:
		f = append(f, make([]byte, r.Intn(8))...)
	}
	return f
}

// The kernel's parser and packet.Parse see the same key in every frame, or both refuse it.
func TestParsersAgree(t *testing.T) {
	b, r := newBench(t), rand.New(rand.NewSource(1))
	all, refused := seeds(), 0
	for i := range 20000 {
		f := all[i%len(all)]
		if i >= len(all) {
			f = mutate(r, f)
		}
		want, reason := packet.Parse(f, b.port.No)
		if !runnable(f) {
			if reason == drop.None {
				t.Fatalf("% x: parsed", f)
			}
			continue
		}
		got, ok := b.parse(t, f)
		if ok != (reason == drop.None) || ok && got != want.Key {
			t.Fatalf("% x:\nkernel %v %+v\nGo     %v %+v", f, ok, got, reason, want.Key)
		}
		if !ok {
			refused++
		}
	}
	t.Logf("%d frames refused", refused)
}

// The kernel rewrites a frame to the same bytes as packet.Rewriter, right or wrong as its checksums are.
func TestRewritersAgree(t *testing.T) {
	b, r := newBench(t), rand.New(rand.NewSource(2))
	all, tried := seeds(), 0
	for i := range 4000 {
		f := all[i%len(all)]
		if i%2 == 1 {
			f = mutate(r, f)
		}
		v, reason := packet.Parse(f, b.port.No)
		if reason != drop.None {
			continue
		}
		as := randomRewrites(r, &v)
		as = append(as, action.Action{Op: action.Output, Port: b.port.No})
		var want []byte
		rw := packet.Rewriter{Emit: func(_ uint32, _ *action.Action, frame []byte) { want = bytes.Clone(frame) }}
		wantErr := rw.Apply(bytes.Clone(f), packet.GSO{}, as)
		_, err := b.PutFlows([]datapath.Flow{{Key: v.Key, Actions: as}})
		if errors.Is(err, datapath.ErrActions) {
			if wantErr == nil && v.Key.Proto != packet.ProtoSCTP {
				t.Fatalf("% x %v: %v", f, as, err)
			}
			continue
		}
		if err != nil || errors.Is(wantErr, packet.ErrRewrite) {
			t.Fatalf("% x %v: flow: %v, rewriter: %v", f, as, err, wantErr)
		}
		verdict, got := b.run(t, f)
		if errors.Is(wantErr, packet.ErrTTL) {
			if verdict != actShot {
				t.Fatalf("% x %v: verdict %d", f, as, verdict)
			}
			continue
		}
		if verdict != actRedirect || !bytes.Equal(got, want) {
			t.Fatalf("% x\n%v: verdict %d\nkernel % x\nGo     % x", f, as, verdict, got, want)
		}
		tried++
		if err := b.DelFlows([]match.Key{v.Key}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d frames rewritten", tried)
}

// The kernel measures what packet.View does: as many bytes as it has pass, and one less does not.
func TestLengthsAgree(t *testing.T) {
	b, r := newBench(t), rand.New(rand.NewSource(3))
	all, tried := seeds(), 0
	for i := range 2000 {
		f := all[i%len(all)]
		if i >= len(all) {
			f = mutate(r, f)
		}
		v, reason := packet.Parse(f, b.port.No)
		if reason != drop.None || !runnable(f) || v.L3Len < 2 {
			continue
		}
		n := uint16(v.WireLen(packet.GSO{}))
		for _, most := range []uint16{n, n - 1} {
			as := action.Physical{{Op: action.CheckLen, Value: most}, {Op: action.Output, Port: b.port.No}}
			if _, err := b.PutFlows([]datapath.Flow{{Key: v.Key, Actions: as}}); err != nil {
				t.Fatal(err)
			}
			if most == n {
				if verdict, _ := b.run(t, f); verdict != actRedirect {
					t.Fatalf("% x: verdict %d with %d bytes allowed", f, verdict, most)
				}
			} else if b.parse(t, f); b.miss.Reason != datapath.MissMTU {
				t.Fatalf("% x: %+v with %d bytes allowed", f, b.miss, most)
			}
		}
		if err := b.DelFlows([]match.Key{v.Key}); err != nil {
			t.Fatal(err)
		}
		tried++
	}
	if tried < 500 {
		t.Errorf("only %d frames tried", tried)
	}
}

func randomRewrites(r *rand.Rand, v *packet.View) (as action.Physical) {
	ops := []action.Op{action.SetEthDst, action.SetEthSrc, action.SetSrc, action.SetDst, action.SetTOS, action.DecTTL, action.SetSrcPort, action.SetDstPort}
	for range r.Intn(6) {
		a := action.Action{Op: ops[r.Intn(len(ops))]}
		switch a.Op {
		case action.SetEthDst, action.SetEthSrc:
			r.Read(a.MAC[:])
		case action.SetSrc, action.SetDst:
			r.Read(a.Addr[:])
			if v.Is4() {
				a.Addr = packet.Addr4(a.Addr[:4])
			}
		case action.SetTOS:
			a.Value = uint16(r.Intn(256))
		case action.SetSrcPort, action.SetDstPort:
			a.Value = uint16(r.Intn(1 << 16))
		}
		as = append(as, a)
	}
	return as
}

// What is dropped without a flow is counted where it belongs.
func TestNoPortAndVerdicts(t *testing.T) {
	b := newBench(t)
	f := seeds()[0]
	if v, _ := b.run(t, f); v != actShot { // no credit
		t.Errorf("verdict %d", v)
	}
	if s := b.count(t); s.Drops[drop.NoCredit] != 1 || s.RxPackets != 1 || s.RxBytes != uint64(len(f)) {
		t.Errorf("%+v", s)
	}
	if err := b.maps.Interfaces.Delete(uint32(b.port.IfIndex)); err != nil {
		t.Fatal(err)
	}
	if v, _ := b.run(t, f); v != actShot {
		t.Errorf("verdict %d", v)
	}
	if s, err := b.stats(0); err != nil || s.Drops[drop.NoPort] != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
