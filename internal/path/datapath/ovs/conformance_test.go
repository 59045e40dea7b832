package ovs

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/datapathtest"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ebpf/netnstest"
)

// moduleHere says whether this kernel has the module. Tests that need it are skipped without; CI runs them in guests
// that have it, and sets VIADUCT_NEED_OVS.
var moduleHere bool

func TestMain(m *testing.M) {
	_, err := netlink.GenlFamilyGet("ovs_datapath")
	moduleHere = err == nil
	if !moduleHere && os.Getenv("VIADUCT_NEED_OVS") == "" {
		os.Exit(m.Run())
	}
	netnstest.Main(m)
}

func needModule(t testing.TB) {
	t.Helper()
	if !moduleHere {
		if os.Getenv("VIADUCT_NEED_OVS") != "" {
			t.Fatal(ErrNoModule)
		}
		t.Skip(ErrNoModule)
	}
}

var serial atomic.Uint32

func testOptions() Options {
	return Options{Name: fmt.Sprintf("ovs-t%d", serial.Add(1)), Workers: 2}
}

// openTest opens a datapath that goes with the test.
func openTest(t testing.TB, opts Options) *Datapath {
	t.Helper()
	needModule(t)
	d, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Unguarded(); (err != nil) != opts.NoBPF {
		t.Errorf("tokens are not taken in the kernel: %v", err)
	}
	t.Cleanup(func() {
		_ = d.Close() // the test may have
		if err := Cleanup(opts); err != nil {
			t.Errorf("clean up: %v", err)
		}
		if _, err := netlink.LinkByName(opts.Name); !errors.As(err, &netlink.LinkNotFoundError{}) {
			t.Errorf("the local interface is still there: %v", err)
		}
	})
	return d
}

// rig is the kernel's world: each port is a veth whose other end is in another namespace.
type rig struct {
	d     *Datapath
	ns    *netnstest.Namespace
	wires map[string]*netnstest.Wire
}

func newRig(t testing.TB, d *Datapath) *rig {
	return &rig{d: d, ns: netnstest.New(t), wires: map[string]*netnstest.Wire{}}
}

func (r *rig) NewPort(t testing.TB) string {
	n := serial.Add(1)
	host, vm := fmt.Sprintf("vdp%d", n), fmt.Sprintf("vm%d", n)
	r.ns.Veth(t, host, vm)
	awaitUp(t, host)
	r.wires[host] = r.ns.Wire(t, vm)
	return host
}

// awaitUp waits until the kernel has noticed that the other end of a pair is up too: until then it drops what is sent out.
func awaitUp(t testing.TB, iface string) {
	t.Helper()
	for range 5000 {
		if l, err := netlink.LinkByName(iface); err != nil {
			t.Fatal(err)
		} else if l.Attrs().OperState == netlink.OperUp {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%s does not come up", iface)
}

// Send returns once the reader has seen the frame, if it missed: here tokens are taken then.
func (r *rig) Send(t testing.TB, iface string, frame []byte) {
	r.deliver(t, iface, frame)
	settle(t, r.d)
}

// deliver returns once the kernel has dealt with the frame, which may happen on another CPU.
func (r *rig) deliver(t testing.TB, iface string, frame []byte) {
	t.Helper()
	before, counted := processed(t, r.d, iface)
	r.wires[iface].Send(t, frame)
	for deadline := time.Now().Add(time.Minute); counted; {
		if now, _ := processed(t, r.d, iface); now > before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the module has not seen the frame sent to %s", iface)
		}
	}
}

// processed is how many packets the datapath has dealt with; ok is false when none from iface will be among them, or
// nobody can ask any more.
func processed(t testing.TB, d *Datapath, iface string) (n uint64, ok bool) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range *d.ports.Load() {
		ok = ok || p.name == iface
	}
	if !ok || d.closed.Load() {
		return 0, false
	}
	err := d.ctl.call(d.ctl.request(d.datapaths, cmdGet, unix.NLM_F_ACK, d.ifindex), func(r *reply) error {
		_, _, as, err := r.payload()
		if s := find(as, dpStats); len(s) >= 16 {
			n = ne.Uint64(s) + ne.Uint64(s[8:]) // hits and misses
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, true
}

// settle waits until nothing is left on the ports' sockets and the reader has dealt with what it took.
func settle(t testing.TB, d *Datapath) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for waiting := true; waiting; {
		d.reading.Lock() // not in the middle of a turn
		waiting = false
		for _, p := range *d.ports.Load() {
			var info [9]uint32
			memInfo(p.fd, &info)
			waiting = waiting || info[0] != 0 // SK_MEMINFO_RMEM_ALLOC
		}
		d.reading.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("the reader does not read")
		}
	}
}

func (r *rig) Recv(t testing.TB, iface string, timeout time.Duration) ([]byte, bool) {
	return r.wires[iface].Recv(t, timeout)
}

func TestConformance(t *testing.T) {
	t.Run("tokens in the kernel", func(t *testing.T) { conformance(t, testOptions, "") })
	t.Run("without BPF", func(t *testing.T) { conformance(t, withoutBPF, "Miss/") })
}

func withoutBPF() Options {
	o := testOptions()
	o.NoBPF = true
	return o
}

func conformance(t *testing.T, options func() Options, only string) {
	needModule(t)
	limits := datapathtest.Limits{
		Coarse:  func(k *match.Key) bool { return holds(k) != nil },
		LateTTL: true, DropsUncounted: true, NoRates: true, Only: only,
		ClosedAsEmpty: !options().NoBPF, // the program that takes tokens has one counter,
		LentUntold:    !options().NoBPF, // and cannot add to the message
	}
	fds, dps := openFiles(t), datapaths(t)
	datapathtest.RunLimited(t, limits, func(t *testing.T) (datapath.Datapath, datapathtest.Rig) {
		t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
		d := openTest(t, options())
		return d, newRig(t, d)
	})
	if now := openFiles(t); now > fds+4 { // the runtime's poller and the netlink library keep some
		t.Errorf("%d open files, %d before", now, fds)
	}
	if now := datapaths(t); now != dps {
		t.Errorf("%d datapaths, %d before", now, dps)
	}
}

func openFiles(t testing.TB) int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// datapaths counts those of the namespace, whoever made them.
func datapaths(t testing.TB) (n int) {
	t.Helper()
	f, err := netlink.GenlFamilyGet("ovs_datapath")
	if err != nil {
		t.Fatal(err)
	}
	c, err := newConn()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := c.dump(c.request(f.ID, cmdGet, unix.NLM_F_DUMP, 0), func(*reply) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}
