// Package offheap is memory for tables that the garbage collector does not know of. Who takes memory from Go's heap while the collector marks
// has to help it, or waits until it is done, which on busy CPUs takes tens of milliseconds. A table that grows while packets wait must do neither;
// and one without pointers has nothing that the collector would look for.
package offheap

import (
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// least is what is worth a map of its own, in bytes. Less comes from Go's heap.
const least = 16 << 10

// Memory is what one owner, a table or a part of it, has taken. The zero value is ready for use; a copy of one that has been used is the same memory.
// Its owner holds it, and must stay reachable for as long as any of the memory is used: pointers into it keep nothing alive. Once no Memory is
// reachable, some time after that, what it has taken is given back to the kernel. Not safe for concurrent use, which does not
// concern the use of what it has handed out.
type Memory struct{ held *held }

// held is what owners hold: when nobody does any more, the regions go.
type held struct{ regions *regions }

type regions []region

type region struct {
	at   unsafe.Pointer
	size uintptr // bytes, whole pages
}

// Make returns n zero values of T, which begin at a page if they are 16 KiB or more. T must not contain pointers of any kind: Make panics if it does.
// When the kernel refuses memory (too many maps, a limit of the address space), it comes from Go's heap, which Refused counts. So does that of small tables, and all of it
// under the race detector, which does not look at other memory. The kernel takes pages when they are first written: until then they cost nothing but addresses.
func Make[T any](m *Memory, n int) []T {
	mustBePlain(reflect.TypeFor[T]())
	size := unsafe.Sizeof(*new(T))
	if OnHeap || n <= 0 || size == 0 || uintptr(n) > math.MaxInt/2/size || uintptr(n)*size < least {
		return make([]T, n)
	}
	page := uintptr(unix.Getpagesize())
	r := region{size: (uintptr(n)*size + page - 1) &^ (page - 1)}
	var err error
	if r.at, err = mapPages(r.size); err != nil {
		refused.Add(1)
		return make([]T, n)
	}
	mapped.Add(uint64(r.size))
	if m.held == nil {
		m.held = &held{new(regions)}
		runtime.AddCleanup(m.held, (*regions).free, m.held.regions)
	}
	*m.held.regions = append(*m.held.regions, r)
	return unsafe.Slice((*T)(r.at), n)
}

// Free gives back what Make returned for the same Memory, whole, before its owner goes. Nobody may use it from then on: its addresses fault, or are
// those of something else. Free does not wait for the kernel, which takes 0.1 ms for each MB.
func Free[T any](m *Memory, s []T) {
	if m.held == nil {
		return // from Go's heap
	}
	all, at := m.held.regions, unsafe.Pointer(unsafe.SliceData(s))
	if i := slices.IndexFunc(*all, func(r region) bool { return r.at == at }); i >= 0 {
		go (*all)[i].unmap()
		*all = slices.Delete(*all, i, i+1)
	}
}

// Mapped is how many bytes all owners have taken from the kernel now, whether they have been written or not. Go's own figures do not have them.
// Safe for concurrent use.
func Mapped() uint64 { return mapped.Load() }

// Refused is how often the kernel has refused memory, which then came from Go's heap. Safe for concurrent use.
func Refused() uint64 { return refused.Load() }

var mapped, refused atomic.Uint64

// mapPages is a variable for tests.
var mapPages = func(size uintptr) (unsafe.Pointer, error) {
	return unix.MmapPtr(-1, 0, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

// unmap gives the region back to the kernel, which may refuse: neighbouring maps are one to it, which it would have to split, and it has a bound for
// how many there are. The region then stays, and is counted.
func (r region) unmap() {
	if unix.MunmapPtr(r.at, r.size) == nil {
		mapped.Add(-uint64(r.size))
	}
}

func (rs *regions) free() {
	for _, r := range *rs {
		r.unmap()
	}
}

var plain sync.Map // types that have no pointers; looking is not free

func mustBePlain(t reflect.Type) {
	if _, ok := plain.Load(t); ok {
		return
	}
	if where := pointer(t); where != "" {
		panic(fmt.Sprintf("offheap: %v has pointers (%s), which the garbage collector would not see", t, where))
	}
	plain.Store(t, nil)
}

// pointer names a part of t that is or has a pointer; "": there is none.
func pointer(t reflect.Type) string {
	switch k := t.Kind(); {
	case k == reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if where := pointer(f.Type); where != "" {
				return f.Name + " " + where
			}
		}
		return ""
	case k == reflect.Array && t.Len() > 0:
		return pointer(t.Elem())
	case k == reflect.Array, k > reflect.Invalid && k <= reflect.Complex128:
		return ""
	default:
		return t.String()
	}
}
