package fake

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// Rig plugs datapathtest into a fake.
type Rig struct {
	*Datapath
	made atomic.Int32
}

// NewPort implements datapathtest.Rig.
func (r *Rig) NewPort(testing.TB) string {
	name := fmt.Sprintf("tap%d", r.made.Add(1))
	r.AddInterface(name, 1500)
	return name
}

// Send implements datapathtest.Rig.
func (r *Rig) Send(t testing.TB, iface string, frame []byte) {
	t.Helper()
	if err := r.Inject(iface, Packet{Frame: frame}); err != nil {
		t.Fatal(err)
	}
}

// Recv implements datapathtest.Rig. What was sent is there already, so it does not wait.
func (r *Rig) Recv(_ testing.TB, iface string, _ time.Duration) ([]byte, bool) {
	s, ok := r.Received(iface)
	return s.Frame, ok
}
