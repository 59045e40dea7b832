package worker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/xlate"
	"github.com/viaduct-net/viaduct/internal/state"
)

// rig is one worker with everything around it but a kernel: a datapath in memory, the real token buckets and state, and
// a clock that is turned by hand.
type rig struct {
	testing.TB
	topo   *pathtest.Topology
	clk    *clock.Manual
	dp     *fake.Datapath
	policy *htb.Policy
	tables *state.Tables
	w      *Worker
	ports  *xlate.Ports
	sent   []fake.Sent

	dpForWorker datapath.Datapath // dp unless a test says otherwise
	change      func(*state.Config)
	free        bool // the misses came without tokens
	tunnelled   bool // it has a tunnel's interface
}

// twoSubnets is a bridge with two VMs, a router, and another bridge with one VM that the topology does not know the
// address of.
const twoSubnets = `
bridge blue
bridge red
router r
vm a blue 02:00:00:00:00:0a 10.0.1.10 fd00:1::10
vm b blue 02:00:00:00:00:0b 10.0.1.11
vm c red 02:00:00:00:00:0c 10.0.2.10 fd00:2::10
vm d red
link blue r=10.0.1.1/24,fd00:1::1/64
link red r=10.0.2.1/24,fd00:2::1/64
`

func newRig(tb testing.TB, network string, cfg Config) *rig {
	return newRigWith(tb, network, cfg, func(*state.Config) {})
}

// newRigWith changes what the tables may hold.
func newRigWith(tb testing.TB, network string, cfg Config, change func(*state.Config)) *rig {
	r := &rig{TB: tb, topo: pathtest.MustParse(network), clk: new(clock.Manual), change: change}
	r.dp = fake.New(r.clk, 1)
	r.dpForWorker = r.dp
	r.start(cfg)
	tb.Cleanup(r.check)
	return r
}

// start makes the worker, as an agent does that starts on a datapath which may have seen another one.
func (r *rig) start(cfg Config) {
	r.Helper()
	r.policy = htb.New(htb.DefaultConfig(), r.dp.RootCredit())
	tables := state.DefaultConfig()
	r.change(&tables)
	r.tables = state.New(tables, r.clk)
	r.w = New(cfg, Deps{Datapath: r.dpForWorker, State: r.tables, Tokens: r.policy, Clock: r.clk, Changed: func(by *Worker, tags []tag.Tag) {
		if by == nil {
			tags = slices.Clone(tags)
			r.w.Do(func() { r.w.Invalidate(tags) })
		}
	}})
	r.w.SetTopology(&r.topo.Snapshot)
	again := r.ports != nil
	r.ports = xlate.NewPorts()
	for id, p := range r.topo.Ports {
		if !p.Exterior() {
			continue
		}
		if !again {
			r.dp.AddInterface(p.Interface, 1500)
		}
		dp, err := r.dp.AddPort(p.Interface, datapath.VM)
		if err != nil {
			r.Fatal(err)
		}
		r.ports = r.ports.With(id, dp.No)
		r.policy.Link(p.Interface, htb.VM, dp.No, dp.Credit)
	}
	r.w.SetPorts(r.ports)
	r.dp.OnSend(r.deliver)
}

func (r *rig) deliver(s fake.Sent) {
	s.Frame = append([]byte(nil), s.Frame...)
	r.sent = append(r.sent, s)
}

// tunnelLeaf gives the tunnel's port its tokens.
func (r *rig) tunnelLeaf(p datapath.Port) { r.policy.Link(p.Interface, htb.Tunnel, p.No, p.Credit) }

// in lets packets, each a line of pathtest, enter the datapath; turn runs the worker until nothing is left to do.
func (r *rig) in(lines ...string) {
	r.Helper()
	for _, l := range lines {
		i := r.topo.MustInject(l)
		if err := r.dp.Inject(r.topo.Ports[i.Port].Interface, fake.Packet{Frame: i.View.Frame, GSO: i.GSO}); err != nil {
			r.Fatal(err)
		}
	}
}

func (r *rig) turn() {
	r.Helper()
	for range 20 {
		if err := r.w.Turn(0); err != nil {
			r.Fatal(err)
		}
	}
}

// got is what has left the datapath since the last call, a line each.
func (r *rig) got() (out []string) {
	for _, s := range r.sent {
		out = append(out, strings.TrimPrefix(s.Interface, "tap-")+" < "+pathtest.Describe(s.Frame))
	}
	r.sent = nil
	return out
}

func (r *rig) expect(want ...string) {
	r.Helper()
	got := r.got()
	if len(got) != len(want) {
		r.Fatalf("delivered %d, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			r.Errorf("delivered %q, want something with %q", got[i], want[i])
		}
	}
}

// check asserts what must hold after every test: every packet has ended in one way, and no token is lost.
func (r *rig) check() {
	c := r.w.Counts()
	ended := c.Executed + c.Consumed + uint64(c.Waiting)
	for _, n := range c.Dropped {
		ended += n
	}
	if c.In != ended {
		r.Errorf("%d packets in, %d ended or waiting: %+v", c.In, ended, c)
	}
	var served, waiting uint64
	for _, p := range r.w.Queue().Stats() {
		ends := p.Executed + p.Consumed
		for _, n := range p.Drops {
			ends += n
		}
		served += p.Served
		waiting += p.Served - ends
	}
	if served != c.In-c.Made && !r.free || waiting != uint64(c.Waiting) {
		r.Errorf("by ports %d in and %d waiting, in all %d (%d made) and %d", served, waiting, c.In, c.Made, c.Waiting)
	}
	if c.Taken != c.Returned {
		r.Errorf("%d tokens taken, %d returned", c.Taken, c.Returned)
	}
	if r.free {
		return
	}
	if a := r.policy.Account(); a.InFlight != int64(r.dp.Queued()) || a.Surplus != 0 {
		r.Errorf("tokens: %+v, %d misses queued", a, r.dp.Queued())
	}
}

func (r *rig) flows() (n int) {
	err := r.dp.DumpFlows(func(*datapath.FlowInfo) bool { n++; return true })
	if err != nil {
		r.Fatal(err)
	}
	return n
}

func (r *rig) advance(d time.Duration) {
	r.clk.Advance(d)
	ask, gone := r.tables.Tick()
	r.w.Invalidate(gone)
	for _, k := range ask {
		r.w.Ask(k.ID, k.Addr)
	}
	r.turn()
}

const aToC = "a udp eth=a>r:blue ip=10.0.1.10>10.0.2.10 ports=1000>53"

// forgetTokens is for tests whose misses have not gone through admission.
func (r *rig) forgetTokens() {
	r.free = true
	r.w.counts.In, r.w.counts.Executed = 0, 0
}
