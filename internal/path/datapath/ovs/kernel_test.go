package ovs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

var macs = packet.Ether{Dst: match.MAC{2, 0x76, 0, 0, 0, 0xb}, Src: match.MAC{2, 0x76, 0, 0, 0, 0xa}}

func udp(ttl uint8, port uint16) []byte {
	ip := packet.IP{Src: addr("10.99.0.1"), Dst: addr("10.99.0.2"), TTL: ttl}
	return packet.BuildUDP(nil, macs, ip, 1, port, bytes.Repeat([]byte{'x'}, 40))
}

func keyOf(t testing.TB, p datapath.Port, frame []byte) match.Key {
	t.Helper()
	v, r := packet.Parse(frame, p.No)
	if r != drop.None {
		t.Fatal(r)
	}
	return v.Key
}

func addPort(t testing.TB, d *Datapath, r *rig) datapath.Port {
	t.Helper()
	p, err := d.AddPort(r.NewPort(t), datapath.VM)
	if err != nil {
		t.Fatal(err)
	}
	atomic.StoreInt64(p.Credit, 0)
	return p
}

// table reads the flows back.
func table(t testing.TB, d *Datapath) map[match.Key]datapath.FlowInfo {
	t.Helper()
	all := map[match.Key]datapath.FlowInfo{}
	if err := d.DumpFlows(func(f *datapath.FlowInfo) bool {
		g := *f
		g.Actions = slices.Clone(f.Actions)
		all[f.Key] = g
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestKernelRoundTrip: 10,000 random flows come back from the kernel as they were put. They are the same ones each time, and others
// for each number in VIADUCT_SEED.
func TestKernelRoundTrip(t *testing.T) {
	seed := 0
	if s := os.Getenv("VIADUCT_SEED"); s != "" {
		var err error
		if seed, err = strconv.Atoi(s); err != nil {
			t.Fatalf("VIADUCT_SEED: %v", err)
		}
	}
	d := openTest(t, testOptions())
	const many, rounds = 500, 20
	gen := rapid.Custom(func(t *rapid.T) datapath.Flow {
		k := drawKey(t, 200)
		return datapath.Flow{Key: k, Actions: drawActions(t, &k, 200)}
	})
	for round := range rounds {
		want := map[match.Key]action.Physical{}
		var fs []datapath.Flow
		var keys []match.Key
		for i := range many {
			f := gen.Example((seed*rounds+round)*many + i)
			if _, ok := want[f.Key]; ok {
				continue
			}
			want[f.Key] = f.Actions
			fs, keys = append(fs, f), append(keys, f.Key)
		}
		if n, err := d.PutFlows(fs); err != nil {
			t.Fatalf("%v: %+v", err, fs[n])
		}
		all := table(t, d)
		for k, as := range want {
			if got, ok := all[k]; !ok || !slices.Equal(got.Actions, as) {
				t.Fatalf("%+v: %v\n got %+v\nwant %+v", k, ok, got.Actions, as)
			}
		}
		if len(all) != len(want) {
			t.Fatalf("%d flows, put %d", len(all), len(want))
		}
		if err := d.DelFlows(keys); err != nil {
			t.Fatal(err)
		}
		if n := len(table(t, d)); n != 0 {
			t.Fatalf("%d flows left", n)
		}
	}
}

// TestAdoption: an agent goes, packets are forwarded, and the next one finds all as it was.
func TestAdoption(t *testing.T) {
	opts := testOptions()
	d := openTest(t, opts)
	r := newRig(t, d)
	in, out := addPort(t, d, r), addPort(t, d, r)
	as := action.Physical{{Op: action.CheckLen, Value: 1000}, {Op: action.SetEthDst, MAC: macs.Src}, {Op: action.DecTTL}, {Op: action.Output, Port: out.No}}
	f := datapath.Flow{Key: keyOf(t, in, udp(9, 5)), Actions: as}
	if _, err := d.PutFlows([]datapath.Flow{f}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(opts); !errors.Is(err, datapath.ErrBusy) {
		t.Fatalf("opened twice: %v", err)
	}
	if err := Cleanup(opts); !errors.Is(err, datapath.ErrBusy) {
		t.Fatalf("cleaned up while open: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	r.wires[in.Interface].Send(t, udp(9, 5))
	if _, ok := r.Recv(t, out.Interface, 5*time.Second); !ok {
		t.Fatal("no agent, no packets")
	}
	if !Exists(opts) {
		t.Fatal("it does not exist")
	}
	d = openTest(t, opts)
	r.d = d
	ps, err := d.Ports()
	if err != nil || len(ps) != 2 || ps[0].No != in.No || ps[0].Interface != in.Interface || ps[0].Class != datapath.VM || ps[1].No != out.No {
		t.Fatalf("%v %+v", err, ps)
	}
	if got := table(t, d)[f.Key]; got.Packets != 1 || !slices.Equal(got.Actions, as) {
		t.Fatalf("%+v", got)
	}
	*ps[0].Credit = 3
	long := packet.BuildUDP(nil, macs, packet.IP{Src: addr("10.99.0.1"), Dst: addr("10.99.0.2"), TTL: 9}, 1, 5, make([]byte, 1000))
	for _, c := range []struct {
		frame  []byte
		reason datapath.MissReason
	}{{udp(9, 6), datapath.MissNoFlow}, {udp(1, 5), datapath.MissTTL}, {long, datapath.MissMTU}} { // all kinds of miss find the new agent
		r.Send(t, in.Interface, c.frame)
		got := readAny(t, d)
		if got.Reason != c.reason || !bytes.Equal(got.Frame, c.frame) {
			t.Fatalf("%+v", got)
		}
	}
	if p := addPort(t, d, r); p.No <= out.No {
		t.Errorf("number %d after %d", p.No, out.No)
	}
}

func readAny(t testing.TB, d *Datapath) *datapath.Miss {
	t.Helper()
	ms := []*datapath.Miss{{}}
	for range 500 {
		for w := range d.Workers() {
			if n, err := d.ReadMisses(w, ms, 5*time.Millisecond); err != nil {
				t.Fatal(err)
			} else if n == 1 {
				return ms[0]
			}
		}
	}
	t.Fatal("no miss")
	return nil
}

// TestForeignDatapath: neither a datapath nor an interface of somebody else is touched.
func TestForeignDatapath(t *testing.T) {
	needModule(t)
	opts := testOptions()
	f, err := netlink.GenlFamilyGet("ovs_datapath")
	if err != nil {
		t.Fatal(err)
	}
	c, err := newConn()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	at := c.request(f.ID, cmdNew, unix.NLM_F_ACK, 0)
	c.msg.text(dpName, opts.Name)
	c.msg.u32(dpUpcallPID, 4711)
	if err := c.call(at, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(opts); !errors.Is(err, datapath.ErrBusy) {
		t.Errorf("Open: %v", err)
	}
	if err := Cleanup(opts); !errors.Is(err, datapath.ErrBusy) {
		t.Errorf("Cleanup: %v", err)
	}
	at = c.request(f.ID, cmdDel, unix.NLM_F_ACK, 0)
	c.msg.text(dpName, opts.Name)
	if err := c.call(at, nil); err != nil {
		t.Errorf("it has gone: %v", err)
	}

	dummy := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: opts.Name}}
	if err := netlink.LinkAdd(dummy); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.LinkDel(dummy) }() // goes with the namespace anyway
	if _, err := Open(opts); !errors.Is(err, datapath.ErrBusy) {
		t.Errorf("Open: %v", err)
	}
	if err := Cleanup(opts); err != nil {
		t.Errorf("Cleanup: %v", err)
	}
	if Exists(opts) {
		t.Error("an interface is taken for a datapath of ours")
	}
}

// TestInterfaceVanishes: a port without its interface can be listed and deleted, and the name comes back as another port.
func TestInterfaceVanishes(t *testing.T) {
	d := openTest(t, testOptions())
	r := newRig(t, d)
	p, out := addPort(t, d, r), addPort(t, d, r)
	l, err := netlink.LinkByName(p.Interface)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
	if ps, err := d.Ports(); err != nil || len(ps) != 2 {
		t.Errorf("%v %v", ps, err)
	}
	es := []datapath.Exec{{Frame: udp(9, 1), InPort: out.No, Actions: action.Physical{{Op: action.Output, Port: p.No}, {Op: action.Output, Port: out.No}}}}
	d.Execute(es)
	if es[0].Err != nil {
		t.Errorf("execute: %v", es[0].Err)
	}
	if _, ok := r.Recv(t, out.Interface, 5*time.Second); !ok {
		t.Error("the other output went wrong too")
	}
	for range 1000 { // the kernel lets go of it in its own time
		if _, err = d.Stats(p.No); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !errors.Is(err, datapath.ErrNoPort) {
		t.Errorf("statistics: %v", err)
	}
	if err := d.DelPort(p.No); err != nil {
		t.Errorf("delete: %v", err)
	}
	r.ns.Veth(t, p.Interface, "again")
	if q, err := d.AddPort(p.Interface, datapath.VM); err != nil || q.No == p.No {
		t.Errorf("%+v %v", q, err)
	}
}

// TestTaken: an interface that a bridge or another datapath has is left alone.
func TestTaken(t *testing.T) {
	d, other := openTest(t, testOptions()), openTest(t, testOptions())
	r := newRig(t, d)
	p := addPort(t, d, r)
	if _, err := other.AddPort(p.Interface, datapath.VM); !errors.Is(err, datapath.ErrBusy) {
		t.Errorf("another datapath's: %v", err)
	}
	if _, err := d.AddPort(p.Interface, datapath.Tunnel); !errors.Is(err, datapath.ErrBusy) {
		t.Errorf("another class: %v", err)
	}
	if _, err := d.AddPort("lo", datapath.VM); err == nil {
		t.Error("lo is a port")
	}
}

// TestBackPressure: while the reader is away, the kernel drops what the port's buffer cannot hold, and counts it.
func TestBackPressure(t *testing.T) {
	opts := withoutBPF()
	opts.SocketBuffer = 8 << 10
	d := openTest(t, opts)
	r := newRig(t, d)
	p, other := addPort(t, d, r), addPort(t, d, r)
	const sent = 200
	d.reading.Lock()
	for i := range uint16(sent) {
		r.deliver(t, p.Interface, udp(9, i))
	}
	if n := lost(portFD(d, p.No)); n == 0 || n >= sent {
		t.Errorf("lost %d of %d", n, sent)
	}
	r.deliver(t, other.Interface, udp(9, 1)) // has a buffer of its own
	d.reading.Unlock()
	settle(t, d)
	for _, c := range []struct {
		no   uint32
		want uint64
	}{{p.No, sent}, {other.No, 1}} {
		if s, err := d.Stats(c.no); err != nil || s.Drops[drop.NoCredit] != c.want || s.Admitted != 0 {
			t.Errorf("port %d: %v %+v", c.no, err, s)
		}
	}
}

// TestTokensInKernel: while the reader is away, no more than the tokens of the port and the root is queued; what had a token
// and no room gives it back; and what waits on the socket of a port that is deleted is read, with its tokens.
func TestTokensInKernel(t *testing.T) {
	opts := testOptions()
	d := openTest(t, opts)
	r := newRig(t, d)
	p, other := addPort(t, d, r), addPort(t, d, r)
	atomic.AddInt64(p.Credit, 20)
	atomic.AddInt64(d.RootCredit(), 10)
	atomic.AddInt64(other.Credit, 1)
	const sent = 100
	d.reading.Lock()
	for i := range uint16(sent) {
		r.deliver(t, p.Interface, udp(9, i))
	}
	if n := d.cells.Refused(p.No); n != sent-30 {
		t.Errorf("%d were refused in the kernel, want %d", n, sent-30)
	}
	r.deliver(t, other.Interface, udp(9, 1))
	d.reading.Unlock()
	settle(t, d)
	for _, c := range []struct {
		p                 datapath.Port
		refused, admitted uint64
	}{{p, sent - 30, 30}, {other, 0, 1}} {
		if s, err := d.Stats(c.p.No); err != nil || s.Drops[drop.NoCredit] != c.refused || s.Admitted != c.admitted || *c.p.Credit != 0 {
			t.Errorf("port %d: %v %+v, %d tokens", c.p.No, err, s, *c.p.Credit)
		}
	}

	atomic.AddInt64(p.Credit, 5)
	d.reading.Lock()
	for i := range uint16(3) {
		r.deliver(t, p.Interface, udp(9, i))
	}
	deleted := make(chan error)
	go func() { deleted <- d.DelPort(p.No) }()
	for d.port(p.No) != nil { // DelPort waits for the reader's lock only
		time.Sleep(time.Millisecond)
	}
	d.reading.Unlock()
	if err := <-deleted; err != nil {
		t.Fatal(err)
	}
	ms := []*datapath.Miss{{}}
	read := 0
	for w := range d.Workers() {
		for {
			n, err := d.ReadMisses(w, ms, 0)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			read++
		}
	}
	if read != 30+1+3 || *p.Credit != 2 {
		t.Errorf("%d misses were read, want 34; %d tokens are left, want 2", read, *p.Credit)
	}
}

// TestTokensWithoutRoom: the token of a miss that the socket has no room for comes back.
func TestTokensWithoutRoom(t *testing.T) {
	opts := testOptions()
	opts.SocketBuffer = 8 << 10
	d := openTest(t, opts)
	r := newRig(t, d)
	p := addPort(t, d, r)
	atomic.AddInt64(p.Credit, 100)
	d.reading.Lock()
	for i := range uint16(100) {
		r.deliver(t, p.Interface, udp(9, i))
	}
	n := lost(portFD(d, p.No))
	d.reading.Unlock()
	if n == 0 {
		t.Fatal("none was lost")
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		s, err := d.Stats(p.No)
		if err != nil {
			t.Fatal(err)
		}
		tokens := atomic.LoadInt64(p.Credit)
		if s.Admitted+uint64(tokens) == 100 && uint64(tokens) == n && s.Drops[drop.NoCredit] == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d were lost; %d tokens, %+v", n, tokens, s)
		}
	}
}

func portFD(d *Datapath, no uint32) int { return d.port(no).fd }

// TestTunnel carries a frame through VXLAN between two datapaths in two namespaces, and a miss back up with its key.
func TestTunnel(t *testing.T) {
	needModule(t)
	opts := testOptions()
	here := openTest(t, opts)
	r := newRig(t, here)
	r.ns.Veth(t, "under0", "under1")
	awaitUp(t, "under0")
	r.ns.Address(t, "under1", "192.0.2.2/24")
	under, err := netlink.LinkByName("under0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr("192.0.2.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(under, a); err != nil {
		t.Fatal(err)
	}
	vxlan := func(name string) *netlink.Vxlan {
		return &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: name}, FlowBased: true, Port: 4789, Learning: false}
	}
	v := vxlan("vx0")
	if err := netlink.LinkAdd(v); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(v) })
	if err := netlink.LinkSetUp(v); err != nil {
		t.Fatal(err)
	}
	tun, err := here.AddPort("vx0", datapath.Tunnel)
	if err != nil {
		t.Fatal(err)
	}
	atomic.StoreInt64(tun.Credit, 0)
	vm := addPort(t, here, r)

	var there *Datapath
	r.ns.Do(t, func() error {
		v := vxlan("vx1")
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(v); err != nil {
			return err
		}
		opts := testOptions()
		if there, err = Open(opts); err != nil {
			return err
		}
		p, err := there.AddPort("vx1", datapath.Tunnel)
		if err != nil {
			return fmt.Errorf("there: %w", err)
		}
		atomic.StoreInt64(p.Credit, 0)
		return nil
	})
	t.Cleanup(func() { _ = there.Close() }) // the datapath goes with the namespace
	atomic.AddInt64(there.RootCredit(), 10)

	frame := udp(9, 5)
	as := action.Physical{{Op: action.SetEthDst, MAC: macs.Dst}, {Op: action.Tunnel, Port: tun.No, Key: 0xabcde, Addr: addr("192.0.2.2")}}
	f := datapath.Flow{Key: keyOf(t, vm, frame), Actions: as}
	if _, err := here.PutFlows([]datapath.Flow{f}); err != nil {
		t.Fatal(err)
	}
	if got := table(t, here)[f.Key]; !slices.Equal(got.Actions, as) {
		t.Fatalf("%+v", got.Actions)
	}
	r.Send(t, vm.Interface, frame)
	m := readAny(t, there)
	if m.Key.TunKey != 0xabcde || !bytes.Equal(m.Frame, frame) {
		t.Fatalf("%+v", m)
	}
	// A flow for what comes out of the tunnel, back where it came from under another key.
	back := datapath.Flow{Key: m.Key, Actions: action.Physical{{Op: action.Tunnel, Port: m.Key.InPort, Key: 7, Addr: addr("192.0.2.1")}}}
	if _, err := there.PutFlows([]datapath.Flow{back}); err != nil {
		t.Fatal(err)
	}
	r.ns.Do(t, func() error { // a dump opens a socket
		if _, ok := table(t, there)[m.Key]; !ok {
			return fmt.Errorf("%+v", table(t, there))
		}
		return nil
	})
	// The flow can be deleted after its port.
	if err := errors.Join(there.DelPort(m.Key.InPort), there.DelFlows([]match.Key{m.Key})); err != nil {
		t.Fatal(err)
	}
	r.ns.Do(t, func() error {
		if n := len(table(t, there)); n != 0 {
			return fmt.Errorf("%d flows are left", n)
		}
		_, err := there.AddPort("vx1", datapath.Tunnel)
		return err
	})
	r.ns.Do(t, func() error {
		ps, err := there.Ports()
		if err != nil || len(ps) != 1 {
			return fmt.Errorf("%v %v", ps, err)
		}
		back.Key.InPort, back.Actions[0].Port = ps[0].No, ps[0].No
		_, err = there.PutFlows([]datapath.Flow{back})
		return err
	})
	atomic.AddInt64(here.RootCredit(), 1)
	es := []datapath.Exec{{Frame: frame, InPort: vm.No, Actions: as}}
	here.Execute(es)
	if es[0].Err != nil {
		t.Fatal(es[0].Err)
	}
	if m := readAny(t, here); m.Key.TunKey != 7 || m.Key.InPort != tun.No || !bytes.Equal(m.Frame, frame) {
		t.Fatalf("%+v", m)
	}

	// A tunnel key needs neither flow nor miss, nor an agent; the next agent knows it.
	comesOut := func() {
		t.Helper()
		r.wires[vm.Interface].Send(t, frame) // there and back
		if got, ok := r.Recv(t, vm.Interface, 5*time.Second); !ok || !bytes.Equal(got, frame) {
			t.Fatalf("out of the tunnel came %x", got)
		}
	}
	if err := here.SetTunnelKey(7, vm.No); err != nil {
		t.Fatal(err)
	}
	comesOut()
	if n := len(table(t, here)); n != 1 {
		t.Errorf("%d flows, put 1: keys are none", n)
	}
	if err := here.Close(); err != nil {
		t.Fatal(err)
	}
	comesOut()
	here = openTest(t, opts)
	r.d = here
	if keys, err := here.TunnelKeys(); err != nil || len(keys) != 1 || keys[7] != vm.No {
		t.Fatalf("adopted keys %v, %v", keys, err)
	}
	comesOut()
	if err := here.SetTunnelKey(7, 0); err != nil {
		t.Fatal(err)
	}
	atomic.AddInt64(here.RootCredit(), 1)
	r.wires[vm.Interface].Send(t, frame)
	if m := readAny(t, here); m.Key.TunKey != 7 {
		t.Fatalf("%+v", m)
	}
}
