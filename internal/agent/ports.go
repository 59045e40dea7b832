package agent

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

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

	mu    sync.Mutex
	bound map[uuid.UUID]boundPort
	table atomic.Pointer[xlate.Ports]
}

type boundPort struct {
	datapath.Port
	leaf *htb.Leaf
}

func newPorts(dp datapath.Datapath, policy *htb.Policy, workers []*worker.Worker, log *slog.Logger) *ports {
	p := &ports{dp: dp, policy: policy, workers: workers, log: log, bound: map[uuid.UUID]boundPort{}}
	p.table.Store(xlate.NewPorts())
	return p
}

// Bind implements binding.Effects: it makes iface a datapath port that stands for vport. The workers know of it before
// its first miss gets a token.
func (p *ports) Bind(vport uuid.UUID, iface string, _ int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	dp, err := p.dp.AddPort(iface, datapath.VM)
	if err != nil {
		return fmt.Errorf("interface %s: %w", iface, err)
	}
	p.publish(p.table.Load().With(vport, dp.No), tag.Tag{Kind: tag.Binding, ID: vport})
	p.bound[vport] = boundPort{dp, p.policy.Link(iface, htb.VM, dp.Credit)}
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
	p.policy.Unlink(b.leaf) // while its cell is still the port's
	if err := p.dp.DelPort(b.No); err != nil {
		p.log.Warn("port cannot be deleted cleanly", "interface", iface, "error", err)
	}
	p.publish(p.table.Load().Without(vport), tag.Tag{Kind: tag.Binding, ID: vport})
	for _, w := range p.workers {
		w.Do(func() { w.ForgetPort(b.No) })
	}
	p.log.Info("unbound", "port", vport, "interface", iface)
}

// publish hands the workers a new table, and then what it changes.
func (p *ports) publish(t *xlate.Ports, changed tag.Tag) {
	p.table.Store(t)
	for _, w := range p.workers {
		w.Do(func() {
			w.SetPorts(t)
			w.Invalidate([]tag.Tag{changed})
		})
	}
}

// get returns the datapath port of a virtual port.
func (p *ports) get(vport uuid.UUID) (datapath.Port, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.bound[vport]
	return b.Port, ok
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
		if _, ok := p.table.Load().Virtual(x.No); ok {
			continue
		}
		if err := p.dp.DelPort(x.No); err != nil {
			return fmt.Errorf("stale port %s: %w", x.Interface, err)
		}
	}
	return nil
}
