package ebpf

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/datapathtest"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ebpf/netnstest"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(agentEnv); name != "" {
		agent(name) // does not return
	}
	netnstest.Main(m)
}

var serial atomic.Uint32

// testOptions are those of a datapath that no other test has.
func testOptions(t testing.TB) Options {
	return Options{Name: fmt.Sprintf("t%d_%d", os.Getpid(), serial.Add(1)), MaxFlows: 20000, MaxPorts: 63, Workers: 2, Tokens: 64}
}

// openTest opens a datapath that goes with the test.
func openTest(t testing.TB, opts Options) *Datapath {
	t.Helper()
	d, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.Close() // the test may have
		if err := Cleanup(opts); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return d
}

// rig is the kernel's world: each port is a veth whose other end is in another namespace.
type rig struct {
	ns    *netnstest.Namespace
	wires map[string]*netnstest.Wire
}

func newRig(t testing.TB) *rig {
	return &rig{ns: netnstest.New(t), wires: map[string]*netnstest.Wire{}}
}

func (r *rig) NewPort(t testing.TB) string {
	n := serial.Add(1)
	host, vm := fmt.Sprintf("vdp%d", n), fmt.Sprintf("vm%d", n)
	r.ns.Veth(t, host, vm)
	r.wires[host] = r.ns.Wire(t, vm)
	return host
}

func (r *rig) Send(t testing.TB, iface string, frame []byte) { r.wires[iface].Send(t, frame) }

func (r *rig) Recv(t testing.TB, iface string, timeout time.Duration) ([]byte, bool) {
	return r.wires[iface].Recv(t, timeout)
}

// TestConformanceClsact is what kernels before 6.6 do.
func TestConformanceClsact(t *testing.T) {
	if testing.Short() {
		t.Skip("short: how programs are attached makes no difference to most of it")
	}
	datapathtest.Run(t, func(t *testing.T) (datapath.Datapath, datapathtest.Rig) {
		opts := testOptions(t)
		opts.clsact = true
		return openTest(t, opts), newRig(t)
	})
}

func TestConformance(t *testing.T) {
	datapathtest.Run(t, func(t *testing.T) (datapath.Datapath, datapathtest.Rig) {
		return openTest(t, testOptions(t)), newRig(t)
	})
}
