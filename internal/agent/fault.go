package agent

import (
	"encoding/hex"
	"fmt"

	"github.com/viaduct-net/viaduct/internal/path/worker"
)

// faulty logs what somebody needs who is to mend it: the packet at which a worker has panicked, and where. The packet was dropped, as
// internal; everybody else is served on.
func (a *Agent) faulty(f worker.Fault) {
	a.log.Error("a packet has met a fault of the agent and was dropped: please report this", "panic", fmt.Sprint(f.Panic),
		"datapath_port", f.Port, "packet", hex.EncodeToString(f.Frame), "more_since_the_last", f.More, "stack", string(f.Stack))
}
