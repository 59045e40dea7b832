package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/mirror"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/disk"
)

// An agent that starts while the store is away begins with what an earlier one has kept on disk: it takes its flows over, and new
// flows are decided by the network as it was known. When the store comes back, the differences are what changes.

// storePatience is how long the store has to answer at the start before what was kept counts.
const storePatience = 300 * time.Millisecond

// kept reads what an earlier agent has kept; nil: nothing that can be used, so that the agent waits for the store.
func (c *Config) kept() *disk.Snapshot {
	if c.StateDir == "" {
		return nil
	}
	s, err := disk.Read(c.StateDir, c.Host)
	if err != nil {
		if !disk.Missing(err) {
			done := ""
			if errors.Is(err, disk.ErrRefused) {
				done = setAside(filepath.Join(c.StateDir, disk.File))
			}
			c.Log.For(logStore).Warn("what an earlier agent has kept cannot be used: without the store the host is not served", "error", cure(c.StateDir, err), "file", done)
		}
		return nil
	}
	return s
}

// keptHost is this host's object in what was kept.
func keptHost(s *disk.Snapshot) *model.Host {
	for _, o := range s.Objects {
		if h, ok := o.(*model.Host); ok && h.ID == s.Host {
			return h
		}
	}
	return &model.Host{Meta: model.Meta{ID: s.Host, Name: s.Name}}
}

// begin says who the host is and what is configured: by the store, or by what was kept while the store does not answer. confirm
// is to be run when it was not the store that said so.
func (a *Agent) begin(ctx context.Context) (err error) {
	cfg, k := &a.cfg, a.cfg.kept()
	a.kept = k
	if k == nil {
		if a.host, err = identify(ctx, cfg); err != nil {
			return err
		}
		a.boot, err = readConf(ctx, cfg.Keys, a.host.ID)
		return err
	}
	soon, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	o, err := cfg.Store.Get(soon, model.KindHost, k.Host)
	if err == nil && o.GetMeta().Name == cfg.Host {
		a.host = o.(*model.Host)
		if a.boot, _, err = conf.Read(soon, cfg.Keys, a.host.ID); err == nil {
			return nil
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil || errors.Is(err, store.ErrNotFound) {
		// The store is there, and knows nothing of this host: it is another one, or the host has a new name.
		a.log.Warn("what an earlier agent has kept is of another store: it is not used", "host", k.Host)
		a.kept = nil
		if a.host, err = identify(ctx, cfg); err != nil {
			return err
		}
		a.boot, err = readConf(ctx, cfg.Keys, a.host.ID)
		return err
	}
	a.log.Warn("the store does not answer: the host starts with what is kept", "written", k.Written, "revision", k.Revision, "error", err)
	a.events.add(debug.EventStoreAway, "", "started without the store, with the network as of revision %d, kept at %s", k.Revision, k.Written.Format(time.RFC3339))
	a.unconfirmed = true
	a.host = keptHost(k)
	a.boot, _, err = conf.Read(ctx, keptKeys(k.Keys), a.host.ID)
	return err
}

// patience is how long the mirror waits for the store.
func (a *Agent) patience() time.Duration {
	if a.unconfirmed {
		return 0
	}
	return storePatience
}

// keptDead are the hosts that an earlier agent took for dead.
func (a *Agent) keptDead() []uuid.UUID {
	if a.kept == nil {
		return nil
	}
	return a.kept.Dead
}

// hearHosts waits until the store has said whether those live that an earlier agent took for dead: flows are about to be judged by it. Of a store
// that is away nobody has come back.
func (a *Agent) hearHosts(ctx context.Context) error {
	if len(a.keptDead()) == 0 || a.unconfirmed {
		return nil
	}
	for end := a.clock.Now() + int64(storePatience); !a.mirror.Heard() && a.clock.Now() < end; {
		if err := a.sleep(ctx, askPoll); err != nil {
			return err
		}
	}
	return nil
}

// keptKeys is the part of the store's keys that was kept.
type keptKeys map[string]string

// ReadKeys implements part of store.Keys.
func (k keptKeys) ReadKeys(context.Context, ...string) (map[string]string, int64, error) {
	return maps.Clone(k), 0, nil
}

// confirm waits for the store and asks it whether this host is who it took itself for.
func (a *Agent) confirm(ctx context.Context) error {
	if !a.unconfirmed {
		return nil
	}
	cfg := a.cfg
	cfg.Waiting = nil
	h, err := identify(ctx, &cfg)
	if err != nil {
		return err
	}
	if h.ID != a.host.ID {
		return fmt.Errorf("host %s is %s in the store, and was %s when its network was kept in %s: the agent must start anew", a.host.Name, h.ID, a.host.ID, a.cfg.StateDir)
	}
	return nil
}

// keptEvery is how often what the mirror holds is written at most; less often where writing would take more than a hundredth
// of the time.
const keptEvery = 10 * time.Second

// topologyKeeper writes what the mirror holds to disk.
type topologyKeeper struct {
	*Agent
	written int64             // revision; -1: what is on disk is not what is known
	changes uint64            // that were in what was written
	dead    []uuid.UUID       // that were in what was written
	heard   uint64            // sharer.heardUntil, of what was written
	keys    map[string]string // of the store, as read last
}

func (a *Agent) newKeeper() *topologyKeeper {
	k := &topologyKeeper{Agent: a, written: -1}
	if a.kept != nil {
		k.keys = a.kept.Keys
	}
	return k
}

// keepTopology writes whenever something has changed, until ctx ends, and then once more.
func (a *Agent) keepTopology(ctx context.Context) error {
	if a.cfg.StateDir == "" {
		return nil
	}
	select {
	case <-a.mirror.Synced():
	case <-ctx.Done():
		return ctx.Err()
	}
	k := a.newKeeper()
	next := time.NewTimer(time.Second) // what the ports of this host need is there by then
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-ctx.Done():
		}
		began := time.Now()
		k.turn(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		next.Reset(max(keptEvery, 100*time.Since(began)))
	}
}

// turn writes if there is news. A disk that is full leaves the last whole file, and what is in its way is told once; the next turn tries again.
func (k *topologyKeeper) turn(ctx context.Context) {
	if k.mirror.Stats().Following {
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		if now, _, err := k.cfg.Keys.ReadKeys(bounded, append(conf.Prefixes(k.host.ID), health.Prefix)...); err == nil {
			if !maps.Equal(now, k.keys) {
				k.written = -1
			}
			k.keys = now
		}
		cancel()
	}
	now, heard := k.mirror.Stats().Changes, k.share.heardUntil()
	holds, err := k.mirror.Keep(context.WithoutCancel(ctx))
	if err == nil && (holds.Revision != k.written || now != k.changes || heard != k.heard || !slices.Equal(holds.Dead, k.dead)) {
		if err = k.writeTopology(holds, k.keys); err == nil {
			k.written, k.changes, k.heard, k.dead = holds.Revision, now, heard, holds.Dead
		}
	}
	k.troubles.set(troubleTopology, "the network is not kept on disk: an agent that starts without the store would begin with what was kept last", cure(k.cfg.StateDir, err))
}

func (a *Agent) writeTopology(k mirror.Kept, keys map[string]string) error {
	s, err := a.keep(k, keys)
	if err != nil {
		return err
	}
	return disk.Write(a.cfg.StateDir, s)
}

func (a *Agent) keep(k mirror.Kept, keys map[string]string) (*disk.Snapshot, error) {
	learnt, err := a.share.keep()
	return &disk.Snapshot{
		Host: a.host.ID, Name: a.host.Name, Written: time.Now(), Revision: k.Revision, Objects: k.Objects, Part: k.Part, Keys: keys, Blocks: a.blocks.held(), Dead: k.Dead, Learnt: learnt,
	}, err
}
