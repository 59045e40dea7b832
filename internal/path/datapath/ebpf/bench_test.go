package ebpf

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// BenchmarkEstablished reports what the kernel says a packet of an established flow costs
// (kernel.bpf_stats_enabled: run_time_ns / run_cnt), as established_ns. Packets are real ones, between
// two veth pairs, one by one.
func BenchmarkEstablished(b *testing.B) {
	for _, c := range []struct {
		name string
		as   action.Physical
	}{
		{"bridged", nil},
		{"routed", action.Physical{{Op: action.SetEthDst, MAC: match.MAC{2, 0, 0, 0, 0, 9}}, {Op: action.SetEthSrc, MAC: match.MAC{2, 0, 0, 0, 0, 8}}, {Op: action.DecTTL}}},
		{"checked", action.Physical{{Op: action.CheckLen, Value: 1500}, {Op: action.SetEthDst, MAC: match.MAC{2, 0, 0, 0, 0, 9}}, {Op: action.SetEthSrc, MAC: match.MAC{2, 0, 0, 0, 0, 8}}, {Op: action.DecTTL}}},
		{"nat", action.Physical{{Op: action.SetEthDst, MAC: match.MAC{2, 0, 0, 0, 0, 9}}, {Op: action.DecTTL},
			{Op: action.SetDst, Addr: packet.Addr4([]byte{10, 9, 9, 9})}, {Op: action.SetDstPort, Value: 99}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			d, r := openTest(b, testOptions(b)), newRig(b)
			in, out := r.NewPort(b), r.NewPort(b)
			p, err := d.AddPort(in, datapath.VM)
			if err != nil {
				b.Fatal(err)
			}
			q, err := d.AddPort(out, datapath.VM)
			if err != nil {
				b.Fatal(err)
			}
			f := testFrame(1)
			flow := datapath.Flow{Key: testKey(p.No, f), Actions: append(c.as, action.Action{Op: action.Output, Port: q.No})}
			if _, err := d.PutFlows([]datapath.Flow{flow}); err != nil {
				b.Fatal(err)
			}
			stats, err := ebpf.EnableStats(0) // BPF_STATS_RUN_TIME
			if err != nil {
				b.Fatal(err)
			}
			defer stats.Close()
			t0, n0 := runTime(b, d)
			for b.Loop() {
				r.Send(b, in, f)
			}
			t1, n1 := runTime(b, d)
			if n1 == n0 {
				b.Fatal("the program did not run")
			}
			b.ReportMetric(float64(t1-t0)/float64(n1-n0), "established_ns")
		})
	}
}

func runTime(b *testing.B, d *Datapath) (time.Duration, uint64) {
	s, err := d.progs.ViaductIngress.Stats()
	if err != nil {
		b.Fatal(err)
	}
	return s.Runtime, s.RunCount
}

// BenchmarkMissAndExecute takes packets up and sends them out again, 32 at a time.
func BenchmarkMissAndExecute(b *testing.B) {
	l := newLoop(b, 32)
	b.ReportAllocs()
	for b.Loop() {
		l.turn(b)
	}
	b.ReportMetric(32, "packets/op")
}

// loop is misses that are executed out of another port.
type loop struct {
	d     *Datapath
	r     *rig
	in    string
	p     datapath.Port
	frame []byte
	ms    []*datapath.Miss
	es    []datapath.Exec
}

func newLoop(t testing.TB, n int) *loop {
	opts := testOptions(t)
	opts.Workers = 1
	l := &loop{d: openTest(t, opts), r: newRig(t), frame: testFrame(1), es: make([]datapath.Exec, n)}
	l.in = l.r.NewPort(t)
	var err error
	if l.p, err = l.d.AddPort(l.in, datapath.VM); err != nil {
		t.Fatal(err)
	}
	q, err := l.d.AddPort(l.r.NewPort(t), datapath.VM)
	if err != nil {
		t.Fatal(err)
	}
	as := action.Physical{{Op: action.SetEthDst, MAC: match.MAC{2, 0, 0, 0, 0, 9}}, {Op: action.DecTTL}, {Op: action.Output, Port: q.No},
		{Op: action.PushVLAN, Value: 5}, {Op: action.Output, Port: q.No}}
	for i := range l.es {
		l.ms = append(l.ms, new(datapath.Miss))
		l.es[i].Actions = as
	}
	return l
}

func (l *loop) turn(t testing.TB) {
	atomic.StoreInt64(l.p.Credit, int64(len(l.ms)))
	for range l.ms {
		l.r.Send(t, l.in, l.frame)
	}
	for got := 0; got < len(l.ms); {
		n, err := l.d.ReadMisses(0, l.ms[got:], time.Second)
		if err != nil || n == 0 {
			t.Fatalf("%d misses, %v", n, err)
		}
		got += n
	}
	for i, m := range l.ms {
		l.es[i].Frame, l.es[i].GSO = m.Frame, m.GSO
	}
	l.d.Execute(l.es)
	for i := range l.es {
		if l.es[i].Err != nil {
			t.Fatal(l.es[i].Err)
		}
	}
}

// Reading misses and executing them allocates nothing, once buffers have grown.
func TestMissesAndExecuteDoNotAllocate(t *testing.T) {
	l := newLoop(t, 8)
	send := func() { l.turn(t) }
	send()
	// What the test's own sender allocates is measured alone.
	sender := testing.AllocsPerRun(50, func() {
		for range l.ms {
			l.r.Send(t, l.in, l.frame)
		}
	})
	if all := testing.AllocsPerRun(50, send); all > sender {
		t.Errorf("%v allocations for %d packets, of which %v are the sender's", all, len(l.ms), sender)
	}
}

// BenchmarkPutDelFlows installs and deletes flows, 64 at a time.
func BenchmarkPutDelFlows(b *testing.B) {
	d := openTest(b, testOptions(b))
	fs, keys := make([]datapath.Flow, 64), make([]match.Key, 64)
	for i := range fs {
		keys[i] = testKey(1, testFrame(uint16(i)))
		fs[i] = datapath.Flow{Key: keys[i], Actions: action.Physical{{Op: action.DecTTL}, {Op: action.Output, Port: 1}}}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.PutFlows(fs); err != nil {
			b.Fatal(err)
		}
		if err := d.DelFlows(keys); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(64, "flows/op")
}
