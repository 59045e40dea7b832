package worker

import (
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// A batch is what others wait for: one broadcast to many ports is one.
func TestCopiesFillABatch(t *testing.T) {
	var b batch
	flood := make(action.Physical, 0, 40)
	for i := range uint32(20) {
		flood = append(flood, action.Action{Op: action.DecTTL}, action.Action{Op: action.Output, Port: i + 1})
	}
	for range 3 {
		if b.send(datapath.Exec{Actions: flood[:8]}); b.full(8) { // four copies
			t.Fatalf("full with %d copies", b.copies)
		}
	}
	if b.send(datapath.Exec{Actions: flood[:8]}); !b.full(8) {
		t.Fatalf("not full with %d copies", b.copies)
	}
	if b.reset(); b.full(8) {
		t.Fatal("full when it has left")
	}
	if b.send(datapath.Exec{Actions: flood}); !b.full(8) {
		t.Fatal("there is room beside a broadcast to 20 ports")
	}
}
