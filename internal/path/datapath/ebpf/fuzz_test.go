package ebpf

import (
	"flag"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// FuzzKey holds the two parsers against each other, like TestParsersAgree: the kernel's program and packet.Parse
// define the same key for a frame, or both refuse it. Run it with -parallel 1: its processes share one bpffs.
func FuzzKey(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	// The process that only hands out inputs must leave the loopback device to the one that runs them.
	var b *bench
	if flag.Lookup("test.fuzz").Value.String() == "" || flag.Lookup("test.fuzzworker").Value.String() == "true" {
		b = newBench(f)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < packet.EthLen || len(frame) > 1500 || !runnable(frame) {
			t.Skip("BPF_PROG_TEST_RUN does not take it")
		}
		want, reason := packet.Parse(frame, b.port.No)
		got, ok := b.parse(t, frame)
		if ok != (reason == drop.None) || ok && got != want.Key {
			t.Fatalf("kernel %v %+v\nGo     %v %+v", ok, got, reason, want.Key)
		}
	})
}
