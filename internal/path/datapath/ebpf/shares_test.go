package ebpf

import (
	"fmt"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ebpf/netnstest"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

// saturated are the classes that send more than is served, with the part of what is served that each must get.
var saturated = []map[datapath.Class]float64{
	{datapath.VM: 1},
	{datapath.Tunnel: 1},
	{datapath.VM: 0.5, datapath.Tunnel: 0.5},
	{datapath.VM: 0.5, datapath.VTEP: 0.5},
	{datapath.Tunnel: 0.5, datapath.VTEP: 0.5},
	{datapath.VM: 0.5, datapath.Tunnel: 0.25, datapath.VTEP: 0.25},
}

// TestClassShares: whoever saturates the agent, on ports of the kernel: tunnel and VTEP have half of it, VMs the other half, and what one
// does not use is the others'.
func TestClassShares(t *testing.T) {
	for _, want := range saturated {
		t.Run(strings.ReplaceAll(strings.TrimPrefix(fmt.Sprint(want), "map"), " ", ","), func(t *testing.T) {
			got := classShares(t, want)
			for class, share := range want {
				if math.Abs(got[class]-share) > 0.02 {
					t.Errorf("%s has %.3f, want %.2f: %v", class, got[class], share, got)
				}
			}
		})
	}
}

// BenchmarkClassShare is for make bench: which part the VMs have, in each combination with them. Run it once: -benchtime=1x.
func BenchmarkClassShare(b *testing.B) {
	for _, want := range saturated[2:] {
		if want[datapath.VM] == 0 {
			continue
		}
		b.Run(fmt.Sprint(len(want), "-with-tunnel-", want[datapath.Tunnel] != 0), func(b *testing.B) {
			b.ReportMetric(100*classShares(b, want)[datapath.VM], "VM_%")
		})
	}
}

// classShares has ports of three classes, of which some always send more than they have tokens for, and an agent that takes eight
// misses at a time and gives their tokens back. It returns what each class had of the misses served.
func classShares(t testing.TB, want map[datapath.Class]float64) map[datapath.Class]float64 {
	here, far, r := netnstest.Here(t), netnstest.New(t), newRig(t)
	n := serial.Add(1)
	under, vx := fmt.Sprintf("under%d", n), fmt.Sprintf("vdpvx%d", n)
	far.Veth(t, under, "eth0")
	here.Address(t, under, "192.168.77.1/24")
	far.Address(t, "eth0", "192.168.77.2/24")
	far.Do(t, func() error {
		return addUp(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx0"}, VxlanId: replicate.Key, Group: net.ParseIP("192.168.77.1"),
			SrcAddr: net.ParseIP("192.168.77.2"), Port: 4789})
	})
	dev := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: vx}, FlowBased: true, Port: 4789}
	if err := addUp(dev); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(dev) })
	r.wires[vx] = far.Wire(t, "vx0")

	opts := testOptions(t)
	opts.Workers, opts.Tokens = 1, 1024
	d := openTest(t, opts)
	policy := htb.New(htb.DefaultConfig(), d.RootCredit())
	classOf, senders := map[uint32]datapath.Class{}, []datapath.Port{}
	for _, p := range []struct {
		iface string
		class datapath.Class
	}{{r.NewPort(t), datapath.VM}, {r.NewPort(t), datapath.VM}, {r.NewPort(t), datapath.VTEP}, {vx, datapath.Tunnel}} {
		port, err := d.AddPort(p.iface, p.class)
		if err != nil {
			t.Fatal(err)
		}
		policy.Link(p.iface, htb.Class(p.class), port.No, port.Credit)
		classOf[port.No] = p.class
		if want[p.class] != 0 {
			senders = append(senders, port)
		}
	}
	// Each sender sends until it has no token left: it always wants more than it gets.
	seq := uint16(0)
	exhaust := func() {
		end := time.Now().Add(time.Minute)
		for i := range senders {
			for p := &senders[i]; atomic.LoadInt64(p.Credit) > 0 || atomic.LoadInt64(d.RootCredit()) > 0; {
				seq++
				r.Send(t, p.Interface, testFrame(seq))
				if time.Now().After(end) {
					t.Fatalf("%s cannot use up its tokens", p.Interface)
				}
			}
		}
	}
	served, count := 0, map[datapath.Class]float64{}
	ms, owners := make([]*datapath.Miss, 8), make([]uint32, 8)
	for i := range ms {
		ms[i] = new(datapath.Miss)
	}
	const warm, total = 1000, 5000 // at first all buckets are full
	for exhaust(); served < total; exhaust() {
		n, err := d.ReadMisses(0, ms, 5*time.Second)
		if err != nil || n == 0 {
			t.Fatalf("%d misses, %v, after %d", n, err, served)
		}
		for i, m := range ms[:n] {
			if owners[i] = m.Key.InPort; m.Lent {
				owners[i] = 0
			}
			if served++; served > warm {
				count[classOf[m.Key.InPort]]++
			}
		}
		policy.Return(owners[:n])
	}
	for c := range count {
		count[c] /= float64(served - warm)
	}
	return count
}
