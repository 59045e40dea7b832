package ebpf

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Records are whole wherever on the ring they are, also those that go on at its beginning; and the room of those that were read is given back.
func TestRingComesAround(t *testing.T) {
	opts := testOptions(t)
	opts.Workers, opts.Tokens = 1, 1
	b := &bench{Datapath: openTest(t, opts)}
	var err error
	b.port, err = b.AddPort("lo", datapath.VM)
	must(t, err)
	const sent = 1000 // of 600 to 1,600 bytes, on a ring of 256 KiB
	ms := []*datapath.Miss{{}, {}, {}, {}}
	for i, next := 0, 0; i < sent || next < i; {
		atomic.StoreInt64(b.port.Credit, 3)
		frames := map[int][]byte{}
		for range min(3, sent-i) {
			frames[i] = append(testFrame(uint16(i)), bytes.Repeat([]byte{byte(i)}, 500+i)...)
			if v, _ := b.run(t, frames[i]); v != actShot {
				t.Fatalf("verdict %d", v)
			}
			i++
		}
		n, err := b.ReadMisses(0, ms, time.Second)
		must(t, err)
		for _, m := range ms[:n] {
			if !bytes.Equal(m.Frame, frames[next]) {
				t.Fatalf("miss %d has another frame: % x", next, m.Frame)
			}
			next++
		}
	}
	if s := b.count(t); s.Admitted != sent {
		t.Errorf("%d of %d found room", s.Admitted, sent)
	}
}

// What cannot be a miss is an error, and so is a ring that is closed.
func TestRingDamaged(t *testing.T) {
	q, err := newQueue(1 << 18)
	must(t, err)
	defer q.close()
	ms := []*datapath.Miss{{}}
	if n, err := q.take(ms); n != 0 || err != nil {
		t.Errorf("%d misses on an empty ring, %v", n, err)
	}
	q.close()
	if _, err := q.take(ms); !errors.Is(err, datapath.ErrClosed) {
		t.Errorf("of a ring that is closed: %v", err)
	}
	if err := decodeMiss(make([]byte, missHeader-1), ms[0]); err == nil {
		t.Error("a record without a header was read")
	}
	short := make([]byte, missHeader+20) // its header says that there is no frame
	if err := decodeMiss(short, ms[0]); err == nil {
		t.Error("a record without a frame was read")
	}
}

// Who waits is woken, also by who came before; by nobody else; and not any more when it is closed.
func TestWaiter(t *testing.T) {
	q, err := newQueue(1 << 18)
	must(t, err)
	defer q.close()
	w := q.wait
	expect := func(woken bool, is bool, err error) {
		t.Helper()
		if is != woken || err != nil {
			t.Fatalf("woken: %v, %v", is, err)
		}
	}
	is, err := w.wait(0)
	expect(false, is, err)
	is, err = w.wait(-5 * time.Second) // it does not wait for ever
	expect(false, is, err)
	w.wake()
	w.wake()
	is, err = w.wait(time.Hour)
	expect(true, is, err)
	is, err = w.wait(0) // both at once
	expect(false, is, err)
	waits := make(chan error)
	wait := func() {
		is, err := w.wait(time.Hour)
		if err == nil && !is {
			err = fmt.Errorf("the time is over")
		}
		waits <- err
	}
	go wait()
	time.Sleep(time.Millisecond) // most likely it sleeps by then
	w.wake()
	must(t, <-waits)
	go wait()
	time.Sleep(time.Millisecond)
	w.close()
	if err := <-waits; err != nil && !errors.Is(err, datapath.ErrClosed) {
		t.Error(err)
	}
	if _, err := w.wait(time.Hour); !errors.Is(err, datapath.ErrClosed) {
		t.Errorf("of one that is closed: %v", err)
	}
	w.wake()
	w.close()
}

// What is read allocates nothing.
func TestReadMissesAllocatesNothing(t *testing.T) {
	b := newBench(t)
	ms := []*datapath.Miss{&b.miss}
	frame := testFrame(1)
	atomic.StoreInt64(b.RootCredit(), 1000)
	for range 200 {
		b.run(t, frame)
	}
	if n := testing.AllocsPerRun(100, func() {
		if n, err := b.ReadMisses(0, ms, time.Second); n != 1 || err != nil {
			t.Errorf("%d misses, %v", n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for each miss", n)
	}
}
