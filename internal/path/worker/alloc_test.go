package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
)

// sink is a datapath that costs nothing: misses are those given, flows and packets vanish.
type sink struct {
	datapath.Datapath
	queue []*datapath.Miss
}

func (s *sink) PutFlows(fs []datapath.Flow) (int, error) { return len(fs), nil }
func (s *sink) DelFlows([]match.Key) error               { return nil }
func (s *sink) Execute([]datapath.Exec)                  {}

func (s *sink) ReadMisses(_ int, ms []*datapath.Miss, _ time.Duration) (n int, _ error) {
	for ; n < len(ms) && len(s.queue) > 0; n++ {
		m := s.queue[0]
		s.queue = s.queue[1:]
		ms[n].Key, ms[n].Frame = m.Key, append(ms[n].Frame[:0], m.Frame...)
	}
	return n, nil
}

// storm makes n misses of flows that differ in their ports, and the worker that will serve them.
func storm(tb testing.TB, n int) (*rig, *sink, []*datapath.Miss) {
	r := newRig(tb, twoSubnets, Config{})
	s := &sink{Datapath: r.dp}
	r.dpForWorker = s
	r.start(Config{})
	no, _ := r.ports.Local(pathtest.ID("a"))
	var ms []*datapath.Miss
	for i := range n {
		in := r.topo.MustInject(fmt.Sprintf("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.10 ports=%d>53", 1000+i))
		in.View.Key.InPort = no
		ms = append(ms, &datapath.Miss{Key: in.View.Key, Frame: in.View.Frame})
	}
	return r, s, ms
}

// A packet costs no allocation, be it simulated or answered by the wildcard table, installed and
// invalidated again.
func TestNoAllocationPerPacket(t *testing.T) {
	r, s, ms := storm(t, 64)
	all := []tag.Tag{{Kind: tag.Device, ID: pathtest.ID("r")}}
	round := func() {
		s.queue = ms
		for len(s.queue)+r.w.queue.Len() > 0 {
			if err := r.w.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		r.w.Invalidate(all)
		if err := r.w.Turn(0); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 { // warm up
		round()
	}
	if n := testing.AllocsPerRun(2000, round); n != 0 {
		t.Errorf("%v allocations for %d packets", n, len(ms))
	}
	if st := r.w.Flows().Stats(); st.WildcardHits < 63*2000 {
		t.Errorf("not what was to be measured: %+v", st)
	}
	r.forgetTokens()
}

func BenchmarkPacket(b *testing.B) {
	for _, c := range []struct {
		name  string
		fresh bool // each packet is simulated
	}{{"wildcard hit", false}, {"simulated", true}} {
		b.Run(c.name, func(b *testing.B) {
			r, s, ms := storm(b, 64)
			all := []tag.Tag{{Kind: tag.Device, ID: pathtest.ID("r")}}
			b.ReportAllocs()
			for n := 0; n < b.N; {
				k := len(ms)
				if c.fresh {
					k = 1
				}
				s.queue = ms[:k]
				for len(s.queue)+r.w.queue.Len() > 0 {
					if err := r.w.Turn(0); err != nil {
						b.Fatal(err)
					}
				}
				r.w.Invalidate(all)
				n += k
			}
			r.forgetTokens()
		})
	}
}
