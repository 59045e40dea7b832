package ebpf

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Misses that come while nobody has the datapath open wait for the next agent, as many as there are tokens, and tokens that
// nobody took stay where they are: also when the next one has other rings, or maps of another layout.
func TestMissesWait(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
	}{
		{"same", func(*Options) {}},
		{"larger rings", func(o *Options) { o.Tokens = 512 }},
		{"more workers", func(o *Options) { o.Workers = 5 }},
		{"fewer workers", func(o *Options) { o.Workers = 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, opts := newRig(t), testOptions(t)
			opts.Workers = 3
			in := r.NewPort(t)
			d := openTest(t, opts)
			p, err := d.AddPort(in, datapath.VM)
			must(t, err)
			// Tokens of a port, as a policy gives them; some are used up while the agent lives.
			atomic.StoreInt64(p.Credit, 10)
			for i := range 3 {
				r.Send(t, in, testFrame(uint16(100+i)))
			}
			read(t, d, 3)
			must(t, d.Close())
			for i := range 9 { // two of these find no token
				r.Send(t, in, testFrame(uint16(200+i)))
			}
			awaitDrops(t, d.opts, p.No, 2)
			c.change(&opts)
			d, err = Open(opts)
			must(t, err)
			defer d.Close()
			if n, err := d.Waiting(0); n != 7 || err != nil {
				t.Errorf("%d misses wait, %v", n, err)
			}
			if n, err := d.Waiting(p.No + 1); n != 0 || err != nil {
				t.Errorf("%d misses of another port wait, %v", n, err)
			}
			ps, err := d.Ports()
			must(t, err)
			atomic.AddInt64(ps[0].Credit, 1)
			r.Send(t, in, testFrame(300)) // and one that comes now
			got := map[uint16]bool{}
			for _, k := range read(t, d, 8) {
				got[k.DstPort] = true
			}
			for i := range uint16(7) {
				if !got[200+i] {
					t.Errorf("miss %d is lost: %v", i, got)
				}
			}
			if n, _ := d.Waiting(0); n != 0 || !got[300] {
				t.Errorf("%d misses wait, got %v", n, got)
			}
		})
	}
	layouts(t, "", func(t *testing.T, opts Options, object []byte, version uint32) {
		r := newRig(t)
		in, out := r.NewPort(t), r.NewPort(t)
		leave(t, opts, object, version, in, out)
		rings(t, opts, version, 1, 4)
		for i := range 3 {
			r.Send(t, in, testFrame(uint16(200+i)))
		}
		awaitAdmitted(t, opts, version, 3)
		d, err := Open(opts)
		must(t, err)
		defer d.Close()
		if n, err := d.Waiting(1); n != 3 || err != nil {
			t.Errorf("%d misses wait, %v", n, err)
		}
		if ps, err := d.Ports(); err != nil || *ps[0].Credit != 1 {
			t.Errorf("%d tokens are left, %v", *ps[0].Credit, err)
		}
		read(t, d, 3)
	})
}

// read reads n misses from all workers' queues.
func read(t *testing.T, d *Datapath, n int) (keys []match.Key) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(keys) < n; {
		if time.Now().After(end) {
			t.Fatalf("%d of %d misses: %v", len(keys), n, keys)
		}
		for w := range d.Workers() {
			ms := []*datapath.Miss{{}, {}}
			k, err := d.ReadMisses(w, ms, time.Millisecond)
			must(t, err)
			for _, m := range ms[:k] {
				keys = append(keys, m.Key)
				if len(m.Frame) == 0 || int(m.Key.ConnectionHash())%d.Workers() != w {
					t.Errorf("worker %d: %+v", w, m)
				}
			}
		}
	}
	return keys
}

// rings gives a datapath that leave made a ring, and a port tokens.
func rings(t *testing.T, opts Options, version, no uint32, tokens int64) {
	t.Helper()
	full, err := opts.withDefaults()
	must(t, err)
	q, err := newQueue(1 << 18)
	must(t, err)
	defer q.close()
	m := pinned(t, full, version, bpfMapRings)
	must(t, m.Put(uint32(0), q.ring))
	must(t, pinned(t, full, version, bpfMapCredits).Put(no, tokens))
}

func pinned(t *testing.T, full Options, version uint32, name string) *ebpf.Map {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(mapDir(full.PinPath, version)+"/"+name, nil)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// statsOf reads a port's counters from maps that nobody has open.
func statsOf(t *testing.T, opts Options, version, no uint32) (admitted, refused uint64) {
	t.Helper()
	full, err := opts.withDefaults()
	must(t, err)
	spec, err := loadBpf()
	must(t, err)
	r, err := newReader(pinned(t, full, version, bpfMapStats), spec.Maps[bpfMapStats])
	must(t, err)
	all := r.perCPU()
	must(t, r.m.Lookup(no, all.Interface()))
	for cpu := range all.Len() {
		var st bpfPortStats
		r.value.apply(unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st)), all.Index(cpu).Slice(0, r.inValue.Len()).Bytes())
		admitted += st.Admitted
		refused += st.Drops[1]
	}
	return admitted, refused
}

func awaitDrops(t *testing.T, opts Options, no uint32, want uint64) {
	t.Helper()
	await(t, func() error {
		if _, n := statsOf(t, opts, layoutVersion, no); n != want {
			return fmt.Errorf("%d packets found no token, want %d", n, want)
		}
		return nil
	})
}

func awaitAdmitted(t *testing.T, opts Options, version uint32, want uint64) {
	t.Helper()
	await(t, func() error {
		if n, _ := statsOf(t, opts, version, 1); n != want {
			return fmt.Errorf("%d packets were admitted, want %d", n, want)
		}
		return nil
	})
}

func await(t *testing.T, holds func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// Misses that were read and not done when an agent ended come again, in their order; those that were done do not.
func TestMissesComeAgain(t *testing.T) {
	for _, c := range []struct {
		name            string
		done, read, new int // misses
		change          func(*Options)
		want            int
	}{
		{"all done", 5, 0, 2, func(*Options) {}, 2},
		{"some not", 5, 3, 2, func(*Options) {}, 5},
		{"none", 0, 3, 0, func(*Options) {}, 0}, // it has never said that it says so
		{"others' rings", 5, 3, 2, func(o *Options) { o.Tokens = 512 }, 5},
		{"more than can be under way", 5, 12, 2, func(o *Options) { o.Tokens = 8 }, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, opts := newRig(t), testOptions(t)
			opts.Workers, opts.Tokens = 1, 8
			in := r.NewPort(t)
			d := openTest(t, opts)
			p, err := d.AddPort(in, datapath.VM)
			must(t, err)
			atomic.StoreInt64(p.Credit, 100)
			sent := 0
			send := func(n int) {
				for range n {
					r.Send(t, in, testFrame(uint16(100+sent)))
					sent++
				}
			}
			if c.done > 0 {
				send(c.done)
				read(t, d, c.done)
				d.Settle(0)
			}
			if c.read > 0 {
				send(c.read)
				read(t, d, c.read)
			}
			must(t, d.Close())
			send(c.new)
			c.change(&opts)
			d, err = Open(opts)
			must(t, err)
			defer d.Close()
			if n, err := d.Waiting(0); n != c.want || err != nil {
				t.Fatalf("%d misses wait, %v; want %d", n, err, c.want)
			}
			if c.want == 0 {
				return
			}
			for i, k := range read(t, d, c.want) {
				if want := uint16(100 + sent - c.want + i); k.DstPort != want {
					t.Errorf("miss %d is %d, want %d", i, k.DstPort, want)
				}
			}
			d.Settle(0)
			must(t, d.Close())
			d, err = Open(opts)
			must(t, err)
			if n, err := d.Waiting(0); n != 0 || err != nil {
				t.Errorf("%d misses wait at last, %v", n, err)
			}
			must(t, d.Close())
		})
	}
}
