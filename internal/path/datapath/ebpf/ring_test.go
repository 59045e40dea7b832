package ebpf

import (
	"sync/atomic"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

func TestRingSize(t *testing.T) {
	for tokens, want := range map[int]int{1: 256 << 10, 3: 256 << 10, 4: 512 << 10, 256: 32 << 20, 900: 64 << 20, 1 << 20: 64 << 20} {
		got := ringSize(tokens)
		if got != want {
			t.Errorf("%d tokens: %d bytes, want %d", tokens, got, want)
		}
		if got < 64<<20 && tokens*(missMax+8) > got {
			t.Errorf("%d tokens: the longest records do not fit", tokens)
		}
	}
}

// A miss that finds no room on the ring is counted, its token goes back to where it came from, and the port
// works on once the ring has been read.
func TestRingFull(t *testing.T) {
	const granted = 6000 // records of 2 KB each, for a ring of 8 MiB
	frame := append(testFrame(1), make([]byte, 1000)...)
	for name, cell := range map[string]func(*bench) *int64{
		"port": func(b *bench) *int64 { return b.port.Credit },
		"root": func(b *bench) *int64 { return b.RootCredit() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			atomic.StoreInt64(cell(b), granted)
			for range granted {
				if v, _ := b.run(t, frame); v != actShot {
					t.Fatalf("verdict %d", v)
				}
			}
			s, left := b.count(t), atomic.LoadInt64(cell(b))
			full := s.Drops[drop.RingFull]
			if full == 0 || s.Admitted == 0 || s.Admitted+full != granted {
				t.Errorf("%d admitted, %d found the ring full, of %d", s.Admitted, full, granted)
			}
			if uint64(left) != full {
				t.Errorf("%d tokens left, %d were to be given back", left, full)
			}
			read := uint64(0)
			for ms := []*datapath.Miss{&b.miss}; ; read++ {
				n, err := b.ReadMisses(0, ms, 0)
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					break
				}
			}
			if read != s.Admitted {
				t.Errorf("%d misses read, %d were admitted", read, s.Admitted)
			}
			b.run(t, frame)
			if now := b.count(t); now.Admitted != s.Admitted+1 || now.Drops[drop.RingFull] != full {
				t.Errorf("after reading: %+v", now)
			}
		})
	}
}
