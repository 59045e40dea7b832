package worker

import "github.com/viaduct-net/viaduct/internal/base/clock"

// meter tells how much of the time that a stage took was spent on its packets. On a busy machine the worker may lose its CPU, for milliseconds, while it has any of
// them at hand: who was charged for that would owe a hundred turns, and stand still for as long as those of all others take.
//
// Clocks of CPU time take system calls, so costs that do no harm are believed, and only others are compared with what the worker
// had of a CPU since the meter was last read.
type meter struct {
	cpu func() clock.CPU // nil: whatever time passes is spent
	at  int64            // when it was last read
	had clock.CPU        // what the worker had then
}

const (
	believed = 200_000   // ns; four turns
	readEach = 1_000_000 // ns; as much of waiting for packets may be mistaken for one for a CPU
)

// begin comes before stages that are measured.
func (m *meter) begin(now int64) {
	if m.cpu != nil && now-m.at > readEach {
		m.at, m.had = now, m.cpu()
	}
}

// spent is what was spent of cost, which ends now.
func (m *meter) spent(cost, now int64) int64 {
	if m.cpu == nil || cost <= believed {
		return cost
	}
	had := m.cpu()
	ran := had.All - m.had.All // at most
	if had.Thread == m.had.Thread {
		ran = had.Own - m.had.Own
	}
	without := now - m.at - ran
	m.at, m.had = now, had
	return min(cost, max(cost-without, believed/4))
}
