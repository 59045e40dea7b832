package fake

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/datapathtest"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	for _, workers := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d workers", workers), func(t *testing.T) {
			datapathtest.Run(t, func(*testing.T) (datapath.Datapath, datapathtest.Rig) {
				d := New(new(clock.Manual), workers)
				return d, &Rig{Datapath: d}
			})
		})
	}
}

func ip(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }

func udp(dst uint16) []byte {
	return packet.BuildUDP(nil, packet.Ether{Dst: match.MAC{2, 1}, Src: match.MAC{2, 2}},
		packet.IP{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2")}, 1, dst, []byte("data"))
}

// setup makes a datapath with two ports, on taps 1 and 2.
func setup(t *testing.T) (*Datapath, *clock.Manual) {
	t.Helper()
	c := new(clock.Manual)
	d := New(c, 1)
	for _, name := range []string{"tap1", "tap2"} {
		d.AddInterface(name, 1500)
		p, err := d.AddPort(name, datapath.VM)
		if err != nil {
			t.Fatal(err)
		}
		*p.Credit = 0
	}
	return d, c
}

func inject(t *testing.T, d *Datapath, iface string, p Packet) {
	t.Helper()
	if err := d.Inject(iface, p); err != nil {
		t.Error(err)
	}
}

func flowTo(dst uint16, out uint32) datapath.Flow {
	v, _ := packet.Parse(udp(dst), 1)
	return datapath.Flow{Key: v.Key, Actions: action.Physical{{Op: action.Output, Port: out}}}
}

func TestFaultsOfPutFlows(t *testing.T) {
	d, _ := setup(t)
	boom := errors.New("boom")
	d.SetFaults(Faults{PutFlow: func(i int, _ *datapath.Flow) error {
		if i == 1 {
			return boom
		}
		return nil
	}})
	n, err := d.PutFlows([]datapath.Flow{flowTo(1, 2), flowTo(2, 2), flowTo(3, 2)})
	if n != 1 || !errors.Is(err, boom) {
		t.Errorf("%d %v", n, err)
	}
	d.SetFaults(Faults{MaxFlows: 2})
	n, err = d.PutFlows([]datapath.Flow{flowTo(1, 2), flowTo(2, 2), flowTo(3, 2)}) // the first replaces
	if n != 2 || !errors.Is(err, datapath.ErrFull) {
		t.Errorf("%d %v", n, err)
	}
	if c := d.Counts(); c.PutFlows != 2 || c.FlowsPut != 3 {
		t.Errorf("%+v", c)
	}
}

func TestFaultsOfTheOthers(t *testing.T) {
	d, _ := setup(t)
	boom := errors.New("boom")
	d.SetFaults(Faults{
		AddPort:  func(string) error { return boom },
		DelFlows: func([]match.Key) error { return boom },
		Dump:     func() error { return boom },
		Execute:  func(e *datapath.Exec) error { return boom },
	})
	es := []datapath.Exec{{Frame: udp(1), Actions: flowTo(1, 2).Actions}}
	d.Execute(es)
	_, add := d.AddPort("tap1", datapath.VM)
	for name, err := range map[string]error{"AddPort": add, "Execute": es[0].Err, "DelFlows": d.DelFlows(nil),
		"DumpFlows": d.DumpFlows(func(*datapath.FlowInfo) bool { return true })} {
		if !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, ok := d.Received("tap2"); ok {
		t.Error("a failed packet was sent")
	}
	if c := d.Counts(); c.ExecFail != 1 || c.Executed != 0 {
		t.Errorf("%+v", c)
	}
}

// TestSegmentsAreMeasured: of an offloaded packet it is the segments that may be too long.
func TestSegmentsAreMeasured(t *testing.T) {
	d, _ := setup(t)
	tcp := packet.BuildTCP(nil, packet.Ether{}, packet.IP{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2")}, packet.TCP{SrcPort: 1, DstPort: 2}, make([]byte, 9000))
	v, _ := packet.Parse(tcp, 1)
	f := datapath.Flow{Key: v.Key, Actions: action.Physical{{Op: action.CheckLen, Value: 1040}, {Op: action.Output, Port: 2}}}
	if _, err := d.PutFlows([]datapath.Flow{f}); err != nil {
		t.Fatal(err)
	}
	*d.RootCredit() = 2
	for _, c := range []struct {
		size  uint16
		fits  bool
		about string
	}{{1000, true, "just as long"}, {1001, false, "longer"}, {0, false, "in one"}} {
		inject(t, d, "tap1", Packet{Frame: tcp, GSO: packet.GSO{Size: c.size, Segs: 9}})
		if _, ok := d.Received("tap2"); ok != c.fits {
			t.Errorf("%s: passes: %v", c.about, ok)
		}
	}
	ms := []*datapath.Miss{{}, {}, {}}
	if n, err := d.ReadMisses(0, ms, 0); n != 2 || err != nil || ms[0].Reason != datapath.MissMTU || ms[0].GSO.Size != 1001 || ms[1].Reason != datapath.MissMTU {
		t.Errorf("%d misses, %v: %+v", n, err, ms[0])
	}
}

func TestTimeIsTheClocks(t *testing.T) {
	d, c := setup(t)
	if _, err := d.PutFlows([]datapath.Flow{flowTo(1, 2)}); err != nil {
		t.Fatal(err)
	}
	idle := func() (r time.Duration) {
		if err := d.DumpFlows(func(f *datapath.FlowInfo) bool { r = f.Idle; return true }); err != nil {
			t.Fatal(err)
		}
		return r
	}
	c.Advance(7 * time.Second)
	if got := idle(); got != 7*time.Second {
		t.Errorf("since installed: %v", got)
	}
	inject(t, d, "tap1", Packet{Frame: udp(1)})
	c.Advance(time.Second)
	if got := idle(); got != time.Second {
		t.Errorf("since used: %v", got)
	}
	*d.RootCredit() = 1
	inject(t, d, "tap1", Packet{Frame: udp(2)})
	m := new(datapath.Miss)
	if n, err := d.ReadMisses(0, []*datapath.Miss{m}, 0); n != 1 || err != nil || m.Time != int64(8*time.Second) {
		t.Errorf("%d %v %d", n, err, m.Time)
	}
}

func TestTunnels(t *testing.T) {
	d, _ := setup(t)
	d.AddInterface("vxlan", 1450)
	tun, err := d.AddPort("vxlan", datapath.Tunnel)
	if err != nil {
		t.Fatal(err)
	}
	peer := ip("192.0.2.7")
	f := flowTo(1, 0)
	f.Actions = action.Physical{{Op: action.Tunnel, Port: tun.No, Key: 77, Addr: peer}}
	if _, err := d.PutFlows([]datapath.Flow{f}); err != nil {
		t.Fatal(err)
	}
	inject(t, d, "tap1", Packet{Frame: udp(1)})
	if s, ok := d.Received("vxlan"); !ok || !s.Tunnel || s.Key != 77 || s.Peer != peer {
		t.Errorf("%v %+v", ok, s)
	}
	*tun.Credit = 1
	inject(t, d, "vxlan", Packet{Frame: udp(1), TunKey: 78})
	inject(t, d, "vxlan", Packet{Frame: udp(1)})
	if s, _ := d.Stats(tun.No); s.Drops[drop.TunnelKey] != 2 || s.Admitted != 0 || *tun.Credit != 1 {
		t.Errorf("keys of no port: %+v, %d tokens", s, *tun.Credit)
	}
	inject(t, d, "vxlan", Packet{Frame: udp(1), TunKey: replicate.Key})
	m := new(datapath.Miss)
	if n, _ := d.ReadMisses(0, []*datapath.Miss{m}, 0); n != 1 || m.Key.TunKey != replicate.Key || m.Key.InPort != tun.No {
		t.Errorf("%+v", m.Key)
	}
}

func TestGSOCountsSegmentsAndBoundsFrames(t *testing.T) {
	d, _ := setup(t)
	*d.RootCredit() = 2
	gso := packet.GSO{Size: 1, Segs: 4}
	inject(t, d, "tap1", Packet{Frame: udp(1), GSO: gso})
	m := new(datapath.Miss)
	if n, _ := d.ReadMisses(0, []*datapath.Miss{m}, 0); n != 1 || m.GSO != gso {
		t.Errorf("%+v", m)
	}
	inject(t, d, "tap1", Packet{Frame: append(udp(1), make([]byte, maxFrame)...)})
	if s, _ := d.Stats(1); s.RxPackets != 5 || s.Drops[drop.TooBig] != 1 || *d.RootCredit() != 1 {
		t.Errorf("%+v", s)
	}
}

func TestOnSendIsAWire(t *testing.T) {
	d, _ := setup(t)
	var got []Sent
	d.OnSend(func(s Sent) {
		got = append(got, s)
		if s.Interface == "tap2" {
			inject(t, d, "tap2", Packet{Frame: udp(9)}) // may call back
		}
	})
	back := flowTo(9, 1)
	back.Key.InPort = 2
	if _, err := d.PutFlows([]datapath.Flow{flowTo(1, 2), back}); err != nil {
		t.Fatal(err)
	}
	inject(t, d, "tap1", Packet{Frame: udp(1)})
	if len(got) != 2 || got[0].Interface != "tap2" || got[1].Interface != "tap1" {
		t.Errorf("%+v", got)
	}
	if err := d.Inject("none", Packet{}); !errors.Is(err, datapath.ErrNoInterface) {
		t.Error(err)
	}
}

func TestOrderIsCompacted(t *testing.T) {
	d, _ := setup(t)
	for i := range 1000 {
		f := flowTo(uint16(i), 2)
		if _, err := d.PutFlows([]datapath.Flow{f, f}); err != nil {
			t.Fatal(err)
		}
		if err := d.DelFlows([]match.Key{f.Key}); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.order) > 20 {
		t.Errorf("%d entries for no flow", len(d.order))
	}
}

// A bucket fills again with time, up to its burst.
func TestBucketFills(t *testing.T) {
	b := bucket{Rate: datapath.Rate{BitsPerSecond: 8000, BurstBits: 16000}} // 1 byte/ms, 2000 bytes
	const ms = int64(1e6)
	for _, c := range []struct {
		bytes uint64
		at    int64
		drops bool
	}{
		{1500, 0, false}, {600, 0, true}, {500, 0, false}, {1, 0, true},
		{100, 99 * ms, true}, {100, 100 * ms, false}, {1, 100 * ms, true},
		{2000, 9000 * ms, false}, {1, 9000 * ms, true}, // no more than the burst
	} {
		if got := b.exceeds(c.bytes, c.at); got != c.drops {
			t.Errorf("%d bytes at %d ms: dropped %v", c.bytes, c.at/ms, got)
		}
	}
}
