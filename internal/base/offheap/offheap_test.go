package offheap

import (
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

type value struct {
	n    atomic.Uint64
	id   [16]byte
	b    bool
	f    [2]float64
	none [0]*int
}

// taken is what Mapped must say of n bytes.
func taken(n uint64) uint64 {
	if OnHeap {
		return 0
	}
	page := uint64(unix.Getpagesize())
	return (n + page - 1) / page * page
}

// settled waits until as many bytes are mapped.
func settled(t *testing.T, want uint64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); Mapped() != want; time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Now().After(end) {
			t.Fatalf("%d bytes are mapped, want %d", Mapped(), want)
		}
	}
}

func TestMake(t *testing.T) {
	settled(t, 0)
	var m Memory
	for _, n := range []int{0, 1, 100, 1000, 12345} {
		before := Mapped()
		s := Make[value](&m, n)
		if len(s) != n {
			t.Fatalf("%d values, want %d", len(s), n)
		}
		for i := range s {
			if v := &s[i]; v.n.Load() != 0 || v.id != [16]byte{} || v.b || v.f != [2]float64{} {
				t.Fatalf("value %d of %d is not zero", i, n)
			}
			s[i].n.Store(uint64(i))
			s[i].f[1] = 1
		}
		size := uint64(n) * uint64(unsafe.Sizeof(value{}))
		if size < least {
			size = 0
		} else if at := uintptr(unsafe.Pointer(unsafe.SliceData(s))); !OnHeap && at%uintptr(unix.Getpagesize()) != 0 {
			t.Errorf("%d values begin at %#x, which is no page", n, at)
		}
		if got := Mapped() - before; got != taken(size) {
			t.Errorf("%d bytes took %d, want %d", size, got, taken(size))
		}
	}
	runtime.KeepAlive(&m)
}

func TestFree(t *testing.T) {
	settled(t, 0)
	var m Memory
	Free(&m, Make[uint64](&m, 10))
	a, b := Make[uint64](&m, least), Make[uint64](&m, 2*least)
	if got, want := Mapped(), taken(3*8*least); got != want {
		t.Fatalf("%d bytes are mapped, want %d", got, want)
	}
	b[0] = 7
	Free(&m, a)
	Free(&m, make([]uint64, least)) // not from here
	settled(t, taken(2*8*least))
	if b[0] != 7 {
		t.Errorf("what was not freed begins with %d", b[0])
	}
	Free(&m, b)
	settled(t, 0)
	runtime.KeepAlive(&m)
}

func TestGoesWithItsOwner(t *testing.T) {
	settled(t, 0)
	type table struct {
		mem Memory
		s   []uint64
	}
	grow := func() *table {
		var tb table
		for range 10 {
			tb.s = Make[uint64](&tb.mem, least)
		}
		Free(&tb.mem, tb.s)
		tb.s = Make[uint64](&tb.mem, least)
		return &tb
	}
	tb := grow()
	settled(t, taken(10*8*least))
	for range 3 {
		runtime.GC()
	}
	tb.s[0] = 1
	if got, want := Mapped(), taken(10*8*least); got != want {
		t.Errorf("%d bytes are mapped while the owner is there, want %d", got, want)
	}
	runtime.KeepAlive(tb)
	settled(t, 0)
}

func TestKernelRefuses(t *testing.T) {
	settled(t, 0)
	defer func(f func(uintptr) (unsafe.Pointer, error)) { mapPages = f }(mapPages)
	mapPages = func(uintptr) (unsafe.Pointer, error) { return nil, unix.ENOMEM }
	var m Memory
	before := Refused()
	s := Make[uint64](&m, least)
	s[least-1] = 1
	if len(s) != least || Mapped() != 0 {
		t.Errorf("%d values, %d bytes are mapped", len(s), Mapped())
	}
	Free(&m, s)
	Make[uint64](&m, 1) // small: nobody is asked
	want := uint64(1)
	if OnHeap {
		want = 0
	}
	if n := Refused() - before; n != want {
		t.Errorf("%d maps were refused, want %d", n, want)
	}
}

func TestPointers(t *testing.T) {
	type deep struct {
		n  int
		in [2]struct{ name string }
	}
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if said, ok := recover().(string); !ok || !strings.Contains(said, what) {
				t.Errorf("of %s it says %q", what, said)
			}
		}()
		f()
	}
	var m Memory
	panics("*int", func() { Make[*int](&m, 1) })
	panics("offheap.deep has pointers (in name string)", func() { Make[deep](&m, 1) })
	panics("[]uint8", func() { Make[[]byte](&m, 1) })
	panics("map[int]int", func() { Make[map[int]int](&m, 1) })
	panics("chan int", func() { Make[chan int](&m, 1) })
	panics("func()", func() { Make[func()](&m, 1) })
	panics("interface", func() { Make[any](&m, 1) })
	panics("unsafe.Pointer", func() { Make[unsafe.Pointer](&m, 1) })
	panics("atomic.Pointer", func() { Make[atomic.Pointer[int]](&m, 1) })
}
