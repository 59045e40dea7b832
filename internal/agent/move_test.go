package agent

import (
	"testing"
	"testing/synctest"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
)

// A worker that tells another host of connections for longer than anybody waits goes on with its packets.
func TestNobodyWaitsForWhatWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a worker that is blocked for good is a panic
		m := newMover(&Agent{mirror: mirror.New(uuid.UUID{1}), logs: logs.Discard(), clock: new(clock.Manual)})
		p := &part{late: 10}
		over := m.telling(p)
		if m.knows(p, 9) {
			t.Error("the other host has said nothing, and there is time")
		}
		if !m.knows(p, 10) {
			t.Error("it is waited for")
		}
		done := make(chan struct{})
		go func() {
			over(0)
			close(done)
		}()
		<-done
	})
}
