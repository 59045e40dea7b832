// Package prefetch has memory that will be read soon brought into the cache, while something else is done. Tables of a million entries are
// in no cache: a place in one of them takes 150 to 300 ns to read, as long as a whole stage of a packet takes otherwise.
package prefetch

import "unsafe"

const lineSize = 64

// Value has the whole of *p brought into the cache. It reads nothing, so that it is no race with a writer, and p may even be out of
// date. It takes some 2 ns for each 64 bytes.
func Value[T any](p *T) {
	at := unsafe.Pointer(p)
	for off := uintptr(0); off < unsafe.Sizeof(*p); off += lineSize {
		line(unsafe.Add(at, off))
	}
	if size := unsafe.Sizeof(*p); size > 1 { // which may begin in the middle of a line
		line(unsafe.Add(at, size-1))
	}
}
