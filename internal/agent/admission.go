package agent

import (
	"sync"

	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// admission is a port's right to tokens. It begins on a worker's goroutine, as soon as all workers know the port, which may be after
// the port has gone again.
type admission struct {
	policy *htb.Policy

	mu    sync.Mutex // before the policy's own
	leaf  *htb.Leaf  // nil: it has not begun
	ended bool
}

// begin gives the port its bucket, and has the datapath take tokens from there.
func (a *admission) begin(class htb.Class, dp datapath.Port) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ended && a.leaf == nil {
		a.leaf = a.policy.Link(dp.Interface, class, dp.No, dp.Credit)
	}
}

// end takes the bucket away. It does not begin again.
func (a *admission) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	if a.leaf != nil {
		a.policy.Unlink(a.leaf)
	}
}
