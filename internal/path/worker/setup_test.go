package worker

import (
	"fmt"
	"testing"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/state"
)

// BenchmarkSetUp is what a new flow costs the worker, by itself: through bridge, router and bridge, plain and with security groups of
// a hundred rules, which track its connection, at both ends.
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
	const flows = 1 << 16 // with one worker's tables; then the next one's
	r := newRigWith(b, network, Config{}, func(s *state.Config) { s.Conntrack.MaxPerOwner = 0 })
	s := &sink{Datapath: r.dp}
	r.dpForWorker = s
	no, _ := r.ports.Local(pathtest.ID("a"))
	ms := make([]*datapath.Miss, flows)
	for i := range ms {
		in := r.topo.MustInject(fmt.Sprintf("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.10 ports=%d>53", i))
		in.View.Key.InPort = no
		ms[i] = &datapath.Miss{Key: in.View.Key, Frame: in.View.Frame}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += flows {
		b.StopTimer()
		r.start(Config{})
		b.StartTimer()
		s.queue = ms[:min(flows, b.N-n)]
		for len(s.queue)+r.w.queue.Len() > 0 {
			if err := r.w.Turn(0); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.StopTimer()
	r.forgetTokens()
}
