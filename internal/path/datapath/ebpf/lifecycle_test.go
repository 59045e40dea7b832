package ebpf

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// agentEnv makes the test binary an agent: "name iface iface". It opens the datapath, has a flow from the
// first interface to the second, a flood to both, and waits to be killed. The interfaces may be missing.
const agentEnv = "VIADUCT_TEST_AGENT"

func agent(args string) {
	f := strings.Fields(args)
	err := func() error {
		d, err := Open(agentOptions(f[0]))
		if err != nil {
			return err
		}
		if len(f) == 1 {
			return nil
		}
		var ps [2]datapath.Port
		for i := range ps {
			if ps[i], err = d.AddPort(f[1+i], datapath.VM); err != nil {
				return err
			}
		}
		_, err = d.PutFlows(agentFlows(ps[0].No, ps[1].No))
		return err
	}()
	fmt.Println("ready:", err)
	for {
		time.Sleep(time.Hour) // not select {}: a program without cgo calls that a deadlock, and ends
	}
}

func agentOptions(name string) Options {
	return Options{Name: name, MaxFlows: 1000, MaxPorts: 15, Tokens: 16}
}

func testFrame(dstPort uint16) []byte {
	ip := func(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }
	return packet.BuildUDP(nil, packet.Ether{Dst: match.MAC{2, 0, 0, 0, 0, 2}, Src: match.MAC{2, 0, 0, 0, 0, 1}},
		packet.IP{Src: ip("10.1.0.1"), Dst: ip("10.1.0.2")}, 7, dstPort, make([]byte, 64))
}

func testKey(in uint32, frame []byte) match.Key {
	v, _ := packet.Parse(frame, in)
	return v.Key
}

func agentFlows(in, out uint32) []datapath.Flow {
	return []datapath.Flow{
		{Key: testKey(in, testFrame(1)), Actions: action.Physical{{Op: action.Output, Port: out}}},
		{Key: testKey(in, testFrame(2)), Actions: action.Physical{{Op: action.Output, Port: out}, {Op: action.Output, Port: in}}},
	}
}

// startAgent runs an agent and waits until it is ready.
func startAgent(t *testing.T, name, in, out string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", agentEnv, name, in, out))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(pipe).ReadString('\n')
	if err != nil || line != "ready: <nil>\n" {
		t.Fatalf("agent: %q, %v", line, err)
	}
	return cmd
}

func TestKillAndAdopt(t *testing.T) {
	r := newRig(t)
	in, out := r.NewPort(t), r.NewPort(t)
	name := fmt.Sprintf("k%d", serial.Add(1))
	opts := agentOptions(name)
	cmd := startAgent(t, name, in, out)
	if _, err := Open(opts); !errors.Is(err, datapath.ErrBusy) {
		t.Fatalf("a second agent: %v", err)
	}
	if err := Cleanup(opts); !errors.Is(err, datapath.ErrBusy) {
		t.Fatalf("clean-up under a living agent: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	check := func(frame []byte) {
		t.Helper()
		r.Send(t, in, frame)
		if _, ok := r.Recv(t, out, 5*time.Second); !ok {
			t.Fatal("an established flow was interrupted")
		}
	}
	check(testFrame(1))
	check(testFrame(2))

	d := openTest(t, opts)
	ps, err := d.Ports()
	if err != nil || len(ps) != 2 || ps[0].Interface != in || ps[1].Interface != out {
		t.Fatalf("adopted ports: %+v, %v", ps, err)
	}
	if p, err := d.AddPort(out, datapath.VM); err != nil || p.No != ps[1].No {
		t.Fatalf("add an adopted port: %+v, %v", p, err)
	}
	want := map[match.Key]action.Physical{}
	for _, f := range agentFlows(ps[0].No, ps[1].No) {
		want[f.Key] = f.Actions
	}
	got := map[match.Key]action.Physical{}
	if err := d.DumpFlows(func(f *datapath.FlowInfo) bool {
		got[f.Key] = append(action.Physical{}, f.Actions...)
		if f.Packets != 1 {
			t.Errorf("%+v", f)
		}
		return true
	}); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("adopted flows: %+v, %v", got, err)
	}
	check(testFrame(1))
	check(testFrame(2))

	// The new agent reads the misses.
	atomic.StoreInt64(ps[0].Credit, 1) // it was closed: the first agent had not come so far
	r.Send(t, in, testFrame(3))
	m := new(datapath.Miss)
	if n, err := d.ReadMisses(0, []*datapath.Miss{m}, 5*time.Second); n != 1 || err != nil || m.Key.DstPort != 3 {
		t.Fatalf("%d misses, %v, %+v", n, err, m.Key)
	}
	// Deleting the flood frees its steps.
	if err := d.DelFlows([]match.Key{testKey(ps[0].No, testFrame(2))}); err != nil {
		t.Fatal(err)
	}
	if n := entries(t, d.maps.WideSteps); n != 0 {
		t.Errorf("%d steps left", n)
	}
	if no, err := d.AddPort(r.NewPort(t), datapath.VM); err != nil || no.No <= ps[1].No {
		t.Errorf("a number again: %+v, %v", no, err)
	}
}

func entries(t *testing.T, m *ebpf.Map) (n int) {
	t.Helper()
	k, v := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	it := m.Iterate()
	for it.Next(&k, &v) {
		n++
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// No packet of an established flow is lost while agents come and go, each with a larger table of flows than the one before.
func TestReopenLosesNothing(t *testing.T) {
	agents := 5
	if testing.Short() {
		agents = 2
	}
	for _, clsact := range []bool{false, true} {
		t.Run(fmt.Sprintf("clsact=%v", clsact), func(t *testing.T) {
			r, opts := newRig(t), testOptions(t)
			opts.clsact = clsact
			in, out := r.NewPort(t), r.NewPort(t)
			d := openTest(t, opts)
			a, err := d.AddPort(in, datapath.VM)
			if err != nil {
				t.Fatal(err)
			}
			b, err := d.AddPort(out, datapath.VM)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.PutFlows(agentFlows(a.No, b.No)); err != nil {
				t.Fatal(err)
			}
			var stop atomic.Bool
			sent := make(chan int)
			go func() {
				n := 0
				for ; !stop.Load() && n < 40000; n++ {
					if _, err := r.wires[in].Write(testFrame(1)); err != nil {
						t.Error(err)
					}
					if n%16 == 0 {
						time.Sleep(time.Millisecond) // not more than the receiver's buffer holds
					}
				}
				sent <- n
			}()
			for range agents {
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				opts.MaxFlows += 20_000 // and of groups
				if d, err = Open(opts); err != nil {
					t.Fatal(err)
				}
				if n := d.FlowRoom(); n != opts.MaxFlows {
					t.Errorf("room for %d flows, want %d", n, opts.MaxFlows)
				}
				checkFlows(t, d, agentFlows(a.No, b.No))
			}
			stop.Store(true)
			n, got := <-sent, 0
			for ; got < n; got++ {
				if _, ok := r.Recv(t, out, time.Second); !ok {
					break
				}
			}
			if got != n {
				t.Errorf("%d of %d frames arrived", got, n)
			}
			_ = d.Close()
		})
	}
}

// checkFlows wants exactly these flows.
func checkFlows(t *testing.T, d *Datapath, want []datapath.Flow) {
	t.Helper()
	got := make(map[match.Key]string)
	if err := d.DumpFlows(func(f *datapath.FlowInfo) bool {
		got[f.Key] = f.Actions.String()
		return true
	}); err != nil {
		t.Error(err)
	}
	for _, f := range want {
		if got[f.Key] != f.Actions.String() {
			t.Errorf("flow %s: %q, want %q", f.Key, got[f.Key], f.Actions)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d flows, want %d", len(got), len(want))
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	for _, clsact := range []bool{false, true} {
		t.Run(fmt.Sprintf("clsact=%v", clsact), func(t *testing.T) {
			r, opts := newRig(t), testOptions(t)
			opts.clsact = clsact
			in := r.NewPort(t)
			d, err := Open(opts)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.AddPort(in, datapath.VM); err != nil {
				t.Fatal(err)
			}
			if n := attached(t, in); n != 1 {
				t.Fatalf("%d programs attached", n)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if n := attached(t, in); n != 1 {
				t.Fatalf("%d programs attached after Close", n)
			}
			for range 2 { // the second finds nothing to do
				if err := Cleanup(opts); err != nil {
					t.Fatal(err)
				}
			}
			if n := attached(t, in); n != 0 {
				t.Errorf("%d programs left", n)
			}
			if l, err := netlink.LinkByName(in); err != nil {
				t.Fatal(err)
			} else if qs, _ := netlink.QdiscList(l); len(qs) > 1 || len(qs) == 1 && qs[0].Type() == "clsact" {
				t.Errorf("qdiscs left: %v", qs)
			}
			full, err := opts.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(full.PinPath); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pins left: %v", err)
			}
		})
	}
}

// attached counts the programs on the interface's ingress, tcx and tc.
func attached(t *testing.T, iface string) int {
	t.Helper()
	l, err := netlink.LinkByName(iface)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if q, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: ebpf.AttachTCXIngress}); err == nil { // Linux 6.6
		n = len(q.Programs)
	}
	fs, _ := netlink.FilterList(l, netlink.HANDLE_MIN_INGRESS) // fails when there is no qdisc
	return n + len(fs)
}

// An interface may vanish, and come back as another.
func TestInterfaceGone(t *testing.T) {
	r, opts := newRig(t), testOptions(t)
	iface := r.NewPort(t)
	d := openTest(t, opts)
	p, err := d.AddPort(iface, datapath.VM)
	if err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(iface)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
	r.ns.Veth(t, iface, "again")
	q, err := d.AddPort(iface, datapath.VM)
	if err != nil || q.No == p.No {
		t.Fatalf("%+v, %v", q, err)
	}
	if err := d.DelPort(p.No); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: iface}}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if ps, err := d.Ports(); err != nil || len(ps) != 0 {
		t.Errorf("ports of interfaces that have gone: %+v, %v", ps, err)
	}
}
