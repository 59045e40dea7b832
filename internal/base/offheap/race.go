//go:build race

package offheap

// OnHeap says that all memory comes from Go's heap: the race detector looks at no other.
const OnHeap = true
