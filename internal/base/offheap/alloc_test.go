//go:build !race

package offheap

import (
	"runtime"
	"testing"
)

func TestNoAllocation(t *testing.T) {
	var m Memory
	if n := testing.AllocsPerRun(100, func() { Make[value](&m, 1000) }); n != 0 {
		t.Errorf("%v allocations, want 0 but for the list of regions", n)
	}
	runtime.KeepAlive(&m)
}
