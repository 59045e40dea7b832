package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/worker"
	"github.com/viaduct-net/viaduct/internal/path/xlate"
)

// ports keeps the datapath's ports, their token buckets and the table that workers translate by in step with
// what is bound to this host.
type ports struct {
	dp      datapath.Datapath
	policy  *htb.Policy
	workers []*worker.Worker
	log     *slog.Logger
	events  *events
	key     func(vport uuid.UUID) uint32 // the tunnel key, 0: none
	rates   func(vport uuid.UUID) datapath.Rates

	mu       sync.Mutex
	bound    map[uuid.UUID]boundPort
	tunnel   *boundPort           // nil: no other host can be reached
	expected map[uuid.UUID]uint32 // ports that move, with their tunnel keys, of which what comes out of tunnels is for the workers
	before   map[uint32]uint64    // misses of each port that an earlier agent has read
	table    atomic.Pointer[xlate.Ports]
}

type boundPort struct {
	datapath.Port
	admission *admission
	key       uint32
	rates     datapath.Rates
}

func newPorts(dp datapath.Datapath, policy *htb.Policy, workers []*worker.Worker, key func(uuid.UUID) uint32, rates func(uuid.UUID) datapath.Rates, log *slog.Logger) *ports {
	p := &ports{dp: dp, policy: policy, workers: workers, key: key, rates: rates, log: log, bound: map[uuid.UUID]boundPort{}, expected: map[uuid.UUID]uint32{}, before: map[uint32]uint64{}}
	p.table.Store(xlate.NewPorts())
	return p
}

// Bind implements binding.Effects: it makes iface a datapath port that stands for vport. All workers know of it before
// its first miss gets a token; until then the datapath refuses what it sends.
func (p *ports) Bind(vport uuid.UUID, iface string, _ int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	dp, err := p.dp.AddPort(iface, datapath.VM)
	if err != nil {
		return fmt.Errorf("interface %s: %w", iface, err)
	}
	if err := p.remember(dp.No); err != nil {
		return fmt.Errorf("interface %s: %w", iface, err)
	}
	key := p.key(vport)
	b := p.limit(vport, boundPort{Port: dp, admission: &admission{policy: p.policy}, key: key})
	p.bound[vport] = b
	p.publish(p.table.Load().With(vport, dp.No), func() { b.admission.begin(htb.VM, dp) }, tag.Tag{Kind: tag.Binding, ID: vport})
	if _, expected := p.expected[vport]; !expected { // or else when its interface is up
		p.lead(vport, key, dp.No)
	}
	p.events.add(debug.EventPortActive, vport.String(), "interface %s is the port", iface)
	p.log.Info("bound", "port", vport, "interface", iface, "number", dp.No)
	return nil
}

// Unbind implements binding.Effects. The port's flows go with it.
func (p *ports) Unbind(vport uuid.UUID, iface string, _ int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.bound[vport]
	if !ok {
		return
	}
	delete(p.bound, vport)
	delete(p.before, b.No)
	table := p.table.Load().Without(vport)
	if _, expected := p.expected[vport]; !expected { // or else it is on the way, and what comes for it waits
		table = table.Forget(vport)
		if b.key != 0 {
			_ = p.dp.SetTunnelKey(b.key, 0) // a datapath without tunnels has none
		}
	}
	b.admission.end() // while its cell is still the port's
	if err := p.dp.DelPort(b.No); err != nil {
		p.log.Warn("port cannot be deleted cleanly", "interface", iface, "error", err)
	}
	p.publish(table, func() {}, tag.Tag{Kind: tag.Binding, ID: vport})
	for _, w := range p.workers {
		w.Do(func() { w.ForgetPort(b.No) })
	}
	p.events.add(debug.EventPortInactive, vport.String(), "interface %s is the port no more", iface)
	p.log.Info("unbound", "port", vport, "interface", iface)
}

// lead has the packets that other hosts send to a port go to a datapath port. The caller holds mu.
func (p *ports) lead(vport uuid.UUID, key, no uint32) {
	if key == 0 {
		return
	}
	if err := p.dp.SetTunnelKey(key, no); err != nil && !errors.Is(err, datapath.ErrTunnel) {
		p.log.Warn("other hosts cannot reach a port", "port", vport, "error", err)
	}
}

// expect has what comes for a port wait, which is on the way to this host, or from it: then it may still be bound.
func (p *ports) expect(vport uuid.UUID, goes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, bound := p.bound[vport]; bound && !goes || p.table.Load().Expects(vport) {
		return
	}
	key := p.key(vport)
	p.expected[vport] = key
	p.publish(p.table.Load().WithExpected(vport, key), func() {}, tag.Tag{Kind: tag.Binding, ID: vport})
	if p.tunnel != nil {
		p.lead(vport, key, p.tunnel.No)
	}
}

// Up implements binding.Effects: what has come for a port that was expected goes on.
func (p *ports) Up(vport uuid.UUID) { p.unexpect(vport) }

// passOn has what comes, and has come, for a port that was expected follow it to another host. False: it was not expected, or follows already.
func (p *ports) passOn(vport uuid.UUID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.table.Load()
	if !t.Expects(vport) {
		return false
	}
	p.publish(t.WithoutExpected(vport), func() {}, tag.Tag{Kind: tag.Binding, ID: vport})
	return true
}

// unexpect ends all that: the port is here, or nothing is to come for it any more.
func (p *ports) unexpect(vport uuid.UUID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key, ok := p.expected[vport]
	if !ok {
		return
	}
	delete(p.expected, vport)
	p.publish(p.table.Load().Forget(vport), func() {}, tag.Tag{Kind: tag.Binding, ID: vport})
	p.lead(vport, key, p.bound[vport].No) // 0 when it is not there
}

// rekey has other hosts reach a port by the key that it has come to have: the port of health checks has another one when the first of a
// router's load balancers is another. The caller holds mu.
func (p *ports) rekey(vport uuid.UUID) {
	b, bound := p.bound[vport]
	old, expected := p.expected[vport]
	if bound {
		old = b.key
	}
	key := p.key(vport)
	if key == 0 || key == old || !bound && !expected {
		return
	}
	no := b.No
	if bound {
		b.key = key
		p.bound[vport] = b
	}
	if expected { // what comes for it waits, or follows it
		p.expected[vport] = key
		if no = 0; p.tunnel != nil {
			no = p.tunnel.No
		}
		if t := p.table.Load(); t.Expects(vport) {
			p.publish(t.WithExpected(vport, key), func() {}, tag.Tag{Kind: tag.Binding, ID: vport})
		}
	}
	p.lead(vport, key, no)
	if !p.reached(old) { // a load balancer that another router has now takes its key with it
		p.lead(vport, old, 0)
	}
}

// reached reports whether a port of this host is reached by a key. The caller holds mu.
func (p *ports) reached(key uint32) bool {
	for _, b := range p.bound {
		if b.key == key {
			return true
		}
	}
	for _, k := range p.expected {
		if k == key {
			return true
		}
	}
	return false
}

// publish hands the workers a new table, and then what it changes. The last of them to have it calls known.
func (p *ports) publish(t *xlate.Ports, known func(), changed ...tag.Tag) {
	p.table.Store(t)
	var left atomic.Int64
	left.Store(int64(len(p.workers)))
	for _, w := range p.workers {
		w.Do(func() {
			w.SetPorts(t)
			w.Invalidate(changed)
			if left.Add(-1) == 0 {
				known()
			}
		})
	}
}

// remember notes how many of a port's misses an earlier agent has read. No worker reads any before all ports are bound. The caller holds mu.
func (p *ports) remember(no uint32) error {
	for {
		st, err := p.dp.Stats(no)
		if err != nil {
			return err
		}
		waiting, err := waiting(p.dp, no)
		if err != nil {
			return err
		}
		if now, err := p.dp.Stats(no); err != nil || now.Admitted != st.Admitted {
			if err != nil {
				return err
			}
			continue // one has come in between: it is in one number and not in the other
		}
		p.before[no] = st.Admitted - uint64(waiting)
		return nil
	}
}

// waiting is how many misses of a port, 0 for all, have come since the last agent read them.
func waiting(dp datapath.Datapath, no uint32) (int, error) {
	w, ok := dp.(datapath.Waiter)
	if !ok {
		return 0, nil
	}
	return w.Waiting(no)
}

// inheritTokens tells the policy of the tokens that an earlier agent has given out, which are still used.
func (a *Agent) inheritTokens() {
	n, err := waiting(a.dp, 0)
	ports, err2 := a.dp.Ports()
	if err := errors.Join(err, err2); err != nil {
		a.log.Warn("tokens of an earlier agent are not known", "error", err)
		return
	}
	for _, p := range ports {
		n += int(max(atomic.LoadInt64(p.Credit), 0))
	}
	a.policy.Inherit(int64(n))
}

// admittedBefore is how many of a port's misses an earlier agent has read.
func (p *ports) admittedBefore(no uint32) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.before[no]
}

// get returns the datapath port of a virtual port.
func (p *ports) get(vport uuid.UUID) (datapath.Port, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.bound[vport]
	return b.Port, ok
}

// all are the datapath ports of virtual ports.
func (p *ports) all() map[uuid.UUID]datapath.Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make(map[uuid.UUID]datapath.Port, len(p.bound))
	for id, b := range p.bound {
		list[id] = b.Port
	}
	return list
}

// sweepStale deletes datapath ports that an earlier agent has left and nothing is bound to any more.
func (p *ports) sweepStale() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	there, err := p.dp.Ports()
	if err != nil {
		return err
	}
	for _, x := range there {
		if _, ok := p.table.Load().Virtual(x.No); ok || p.tunnel != nil && x.No == p.tunnel.No {
			continue
		}
		p.policy.Recall(x.Credit)
		if err := p.dp.DelPort(x.No); err != nil {
			return fmt.Errorf("stale port %s: %w", x.Interface, err)
		}
	}
	return p.sweepKeys()
}
