package worker

import "time"

// intake says whose packets a worker takes. The others wait where the datapath keeps them.
type intake uint8

const (
	nobody intake = iota
	hosts         // other hosts' messages
	everybody
)

// tooLate is how long a packet may have waited for an agent, as long as one that is parked.
const tooLate = 5 * time.Second

// Listen has a worker that takes no packets yet take what other hosts tell, and nothing else. Call it through Do.
func (w *Worker) Listen() {
	if w.intake == nobody {
		w.intake = hosts
		w.queue.OnlyUrgent(true)
	}
}

// Serve has it take all packets. Those that have waited for longer than tooLate are dropped. Call it through Do.
func (w *Worker) Serve() {
	if w.intake != everybody {
		w.intake, w.late = everybody, true
		w.queue.OnlyUrgent(false)
	}
}

// rest waits until Do has been called.
func (w *Worker) rest(wait time.Duration) {
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-w.bell:
	case <-t.C:
	}
}
