package ebpf

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ebpf/netnstest"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

// Another host, with a VXLAN device of the kernel's own, at the far end of an underlay of each family.
func TestTunnel(t *testing.T) {
	for _, u := range []struct{ name, here, far, bits string }{
		{"IPv4", "192.168.77.1", "192.168.77.2", "/24"}, {"IPv6", "fd77::1", "fd77::2", "/64"},
	} {
		t.Run(u.name, func(t *testing.T) {
			const vni = 4242
			const hosts = replicate.Key
			here, far, r := netnstest.Here(t), netnstest.New(t), newRig(t)
			n := serial.Add(1)
			under, vx := fmt.Sprintf("under%d", n), fmt.Sprintf("vdpvx%d", n)
			far.Veth(t, under, "eth0")
			here.Address(t, under, u.here+u.bits)
			far.Address(t, "eth0", u.far+u.bits)
			far.Do(t, func() error {
				return addUp(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx0"}, VxlanId: vni, Group: net.ParseIP(u.here), SrcAddr: net.ParseIP(u.far), Port: 4789})
			})
			far.Do(t, func() error {
				return addUp(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx1"}, VxlanId: hosts, Group: net.ParseIP(u.here), SrcAddr: net.ParseIP(u.far), Port: 4789})
			})
			dev := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: vx}, FlowBased: true, Port: 4789}
			if err := addUp(dev); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = netlink.LinkDel(dev) })
			wire := far.Wire(t, "vx0")

			opts := testOptions(t)
			opts.Workers = 1
			d := openTest(t, opts)
			tun, err := d.AddPort(vx, datapath.Tunnel)
			if err != nil {
				t.Fatal(err)
			}
			vm := r.NewPort(t)
			p, err := d.AddPort(vm, datapath.VM)
			if err != nil {
				t.Fatal(err)
			}
			as := action.Physical{{Op: action.Tunnel, Port: tun.No, Key: vni, Addr: match.AddrFrom(netip.MustParseAddr(u.far))}}
			expect := func(frame []byte) {
				t.Helper()
				for {
					got, ok := wire.Recv(t, 5*time.Second)
					if !ok {
						t.Fatal("nothing came through the tunnel")
					}
					if bytes.Equal(got, frame) {
						return
					}
				}
			}

			f := testFrame(1)
			if _, err := d.PutFlows([]datapath.Flow{{Key: testKey(p.No, f), Actions: as}}); err != nil {
				t.Fatal(err)
			}
			r.Send(t, vm, f)
			expect(f)

			// Translated: over IPv6 too much for the flow's own step, over IPv4 not.
			nat := append(action.Physical{{Op: action.SetDst, Addr: packet.Addr4([]byte{10, 0, 0, 77})}, {Op: action.SetDstPort, Value: 78}}, as...)
			f = testFrame(9)
			if _, err := d.PutFlows([]datapath.Flow{{Key: testKey(p.No, f), Actions: nat}}); err != nil {
				t.Fatal(err)
			}
			wide := 0
			if u.name == "IPv6" {
				wide = 1
			}
			if n := entries(t, d.maps.WideSteps); n != wide {
				t.Errorf("%d wide steps, want %d", n, wide)
			}
			rw := packet.Rewriter{Emit: func(_ uint32, _ *action.Action, frame []byte) { r.Send(t, vm, f); expect(frame) }}
			if err := rw.Apply(bytes.Clone(f), packet.GSO{}, nat); err != nil {
				t.Fatal(err)
			}

			es := []datapath.Exec{{Frame: testFrame(2), InPort: p.No, Actions: as}, {Frame: testFrame(3), InPort: p.No, Actions: as}}
			d.Execute(es)
			for i := range es {
				if es[i].Err != nil {
					t.Fatal(es[i].Err)
				}
				expect(testFrame(uint16(2 + i)))
			}

			// A key of no port: dropped where it came in, for no token.
			stats := func(what string, want func(datapath.PortStats) bool) {
				t.Helper()
				for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
					s, err := d.Stats(tun.No)
					if err == nil && want(s) {
						return
					}
					if time.Now().After(end) {
						t.Fatalf("%s: %+v, %v", what, s, err)
					}
				}
			}
			atomic.StoreInt64(tun.Credit, 1)
			dropped, _ := d.Stats(tun.No)
			wire.Send(t, testFrame(4))
			stats("a key of no port", func(s datapath.PortStats) bool {
				return s.Drops[drop.TunnelKey] > dropped.Drops[drop.TunnelKey] && s.Admitted == 0
			})
			if n := atomic.LoadInt64(tun.Credit); n != 1 {
				t.Errorf("%d tokens are left of one", n)
			}
			// What hosts tell each other is a miss.
			m := new(datapath.Miss)
			want := testKey(tun.No, testFrame(4))
			want.TunKey = hosts
			told := far.Wire(t, "vx1")
			told.Send(t, testFrame(4))
			if n, err := d.ReadMisses(0, []*datapath.Miss{m}, 5*time.Second); n != 1 || err != nil || m.Key != want || !bytes.Equal(m.Frame, testFrame(4)) {
				t.Errorf("%d misses, %v: %+v, want %+v", n, err, m.Key, want)
			}

			// So is what comes for a port that is to be this host's soon: its key leads to the tunnel itself.
			if err := d.SetTunnelKey(vni, tun.No); err != nil {
				t.Fatal(err)
			}
			atomic.StoreInt64(tun.Credit, 1)
			wire.Send(t, testFrame(7))
			want = testKey(tun.No, testFrame(7))
			want.TunKey = vni
			if n, err := d.ReadMisses(0, []*datapath.Miss{m}, 5*time.Second); n != 1 || err != nil || m.Key != want || !bytes.Equal(m.Frame, testFrame(7)) {
				t.Errorf("%d misses, %v: %+v, want %+v", n, err, m.Key, want)
			}

			// With the key known there is no miss, and none of the tunnel's tokens is asked for.
			if err := d.SetTunnelKey(vni, p.No); err != nil {
				t.Fatal(err)
			}
			wire.Send(t, testFrame(5))
			if got, ok := r.Recv(t, vm, 5*time.Second); !ok || !bytes.Equal(got, testFrame(5)) {
				t.Errorf("by key: got %x, want %x", got, testFrame(5))
			}
			if err := d.DelPort(p.No); err != nil {
				t.Fatal(err)
			}
			wire.Send(t, testFrame(6))
			stats("after the port has gone", func(s datapath.PortStats) bool { return s.Drops[drop.OutputGone] == 1 && s.Admitted == 2 })
		})
	}
}

func addUp(l netlink.Link) error {
	if err := netlink.LinkAdd(l); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}
