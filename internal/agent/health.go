package agent

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/check"
	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
)

// checks are the health checks that this host makes: of the members behind the routers for which it is elected.
type checks struct {
	*Agent
	changed chan struct{} // the network has; one is enough
	values  chan string   // reports to be announced

	mu     sync.Mutex
	report health.Report
}

func newChecks(a *Agent) *checks {
	return &checks{Agent: a, changed: make(chan struct{}, 1), values: make(chan string), report: health.Report{}}
}

// topologyChanged must return soon.
func (c *checks) topologyChanged(mirror.Change) {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// follow hands the mirror what all hosts have found, again whenever it changes. The store may be away.
func (c *checks) follow(ctx context.Context) error {
	var known health.Report
	for {
		news, err := c.cfg.Keys.WatchKeys(ctx, health.Prefix)
		if err == nil {
			for range news {
				keys, _, err := c.cfg.Keys.ReadKeys(ctx, health.Prefix)
				if err != nil {
					break
				}
				s := health.Read(keys, known)
				known = s.Members
				c.mirror.SetHealth(s)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// announce tells all hosts what this one has found, and by that that it can be elected.
func (c *checks) announce(ctx context.Context) error {
	return c.cfg.Keys.Announce(ctx, health.Key(c.host.ID), c.values)
}

// run makes the checks that are due to this host.
func (c *checks) run(ctx context.Context) error {
	select {
	case c.values <- c.text():
	case <-ctx.Done():
		return ctx.Err()
	}
	spaces := make(map[uuid.UUID]*check.Space)
	news := make(chan check.Result)
	defer func() {
		for _, s := range spaces {
			s.Close()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-news:
			if !c.note(r) {
				continue
			}
			select {
			case c.values <- c.text():
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-c.changed:
			c.reconcile(ctx, spaces, news)
		}
	}
}

// reconcile begins and ends checks so that they are those of the network.
func (c *checks) reconcile(ctx context.Context, spaces map[uuid.UUID]*check.Space, news chan<- check.Result) {
	snap := c.mirror.Snapshot()
	due := make(map[uuid.UUID][]check.Target)
	for _, l := range snap.Balancers {
		r := snap.Router(l.Router)
		if r == nil || r.Health == uuid.Nil {
			continue
		}
		if p := snap.Port(r.Health); p == nil || p.Host != c.host.ID {
			continue
		}
		for i := range l.Listeners {
			x := &l.Listeners[i]
			if x.Monitor == nil {
				continue
			}
			for _, m := range x.Members {
				due[l.Router] = append(due[l.Router], check.Target{Member: m.ID, Address: m.Address.Netip(), Port: m.MonitorPort, Monitor: *x.Monitor, Down: m.Down})
			}
		}
	}
	for router, s := range spaces {
		if _, ok := due[router]; !ok {
			s.Close()
			delete(spaces, router)
			c.forget(router)
		}
	}
	for router, targets := range due {
		s := spaces[router]
		if s == nil {
			var err error
			if s, err = check.Open(router, snap.Port(snap.Router(router).Health).MAC); err != nil {
				c.log.Error("members cannot be checked", "router", snap.Router(router).Name, "error", err)
				continue
			}
			spaces[router] = s
		}
		s.Set(ctx, targets, news)
	}
}

// note keeps a result; false when it is no news.
func (c *checks) note(r check.Result) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, known := c.report[r.Router][r.Member]
	r.Since = was.Since
	if known && was == r.Status {
		return false
	}
	if !known || was.Up != r.Up {
		r.Since = time.Now().Truncate(time.Second).UTC()
	}
	members := maps.Clone(c.report[r.Router])
	if members == nil {
		members = make(map[uuid.UUID]health.Status)
	}
	members[r.Member] = r.Status
	c.report[r.Router] = members
	c.log.Info("member of a load balancer", "member", r.Member, "up", r.Up, "reason", r.Reason)
	return true
}

func (c *checks) forget(router uuid.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.report, router)
}

func (c *checks) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.report.Text()
}
