package worker

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/state"
)

// BenchmarkSetUp is what a new flow costs the worker, by itself: through bridge, router and bridge, plain and with security groups of
// a hundred rules, which track its connection, at both ends. The table is full, so that each takes the place of the oldest.
func BenchmarkSetUp(b *testing.B) {
	rules := "secure a\nsecure c\ngroups a g h\ngroups c g h\ngroup some 192.0.2.1\n"
	for i := range 24 {
		rules += fmt.Sprintf("allow g in proto=6 ports=%d\nallow g out proto=17 ports=%d prefix=192.0.2.0/24\nallow h in proto=17 ports=%d addresses=some\nallow h out proto=17 ports=%d\n",
			i+1000, i+1, i+1, i+1000)
	}
	rules += "allow g out proto=17 remote=h\nallow g in proto=17 prefix=10.0.0.0/8\n"
	for name, network := range map[string]string{"plain": twoSubnets, "stateful": twoSubnets + rules} {
		b.Run(name, func(b *testing.B) { setUp(b, network) })
	}
}

func setUp(b *testing.B, network string) {
	const full = 200_000
	r := newRigWith(b, network, Config{}, func(s *state.Config) { s.Conntrack.MaxPerOwner = 0 })
	no, _ := r.ports.Local(pathtest.ID("a"))
	in := r.topo.MustInject("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.10 ports=1>53")
	in.View.Key.InPort = no
	s := &flood{sink: sink{Datapath: r.dp}, like: datapath.Miss{Key: in.View.Key, Frame: in.View.Frame}, ports: 34}
	r.dpForWorker = s
	r.start(Config{Flow: flow.Config{MaxFlows: full}})
	run := func(n int) {
		for s.left = n; s.left+r.w.queue.Len() > 0; {
			if err := r.w.Turn(0); err != nil {
				b.Fatal(err)
			}
		}
	}
	run(full)
	b.ReportAllocs()
	b.ResetTimer()
	run(b.N)
	b.StopTimer()
	r.forgetTokens()
}

// flood is a datapath without end in which each miss is of a flow of its own.
type flood struct {
	sink
	like  datapath.Miss
	ports int // where in the frame they are
	left  int
	next  uint32
}

func (f *flood) ReadMisses(_ int, ms []*datapath.Miss, _ time.Duration) (n int, _ error) {
	for ; n < len(ms) && f.left > 0; n++ {
		f.next++
		f.left--
		m := ms[n]
		m.Key, m.Frame = f.like.Key, append(m.Frame[:0], f.like.Frame...)
		m.Key.SrcPort, m.Key.DstPort = uint16(f.next), uint16(1024+f.next>>16)
		binary.BigEndian.PutUint16(m.Frame[f.ports:], m.Key.SrcPort)
		binary.BigEndian.PutUint16(m.Frame[f.ports+2:], m.Key.DstPort)
	}
	return n, nil
}
