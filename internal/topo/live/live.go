// Package live tells which hosts are alive: those whose agents keep a session with the store.
//
// A host is dead when its session has ended while the store could be asked, and not before: without the store nobody is, and when
// it comes back, every host has the time of a session to say that it lives. That the store could be asked is what this host's own session says:
// a store that was silent ends those of all. An agent that is started anew goes on with what an earlier one has kept: who was dead then is so until the
// store says that it lives.
package live

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// TTL is for how long a host may be silent. What became of a dead one is known everywhere within ten seconds.
const TTL = 8 * time.Second

const prefix = "host/"

// Path is where the store has an entry (store.Shared) for as long as a host lives.
func Path(host uuid.UUID) string { return prefix + host.String() }

// Hosts says who is alive; the zero value knows nobody to be dead.
type Hosts struct {
	known bool // who is not in alive is dead; else who is in kept, and not in alive
	alive map[uuid.UUID]bool
	kept  map[uuid.UUID]bool
}

// Kept is what is known by who has heard only that these were dead.
func Kept(dead ...uuid.UUID) Hosts {
	h := Hosts{kept: make(map[uuid.UUID]bool)}
	for _, id := range dead {
		h.kept[id] = true
	}
	return h
}

// Of is what is known once exactly these are alive.
func Of(alive ...uuid.UUID) Hosts {
	h := Hosts{known: true, alive: make(map[uuid.UUID]bool)}
	for _, id := range alive {
		h.alive[id] = true
	}
	return h
}

// Dead reports whether a host is known to be dead.
func (h Hosts) Dead(id uuid.UUID) bool { return !h.alive[id] && (h.known || h.kept[id]) }

// clone is a copy that has maps of its own, none of them nil.
func (h Hosts) clone() Hosts {
	c := Hosts{known: h.known, alive: make(map[uuid.UUID]bool), kept: make(map[uuid.UUID]bool)}
	maps.Copy(c.alive, h.alive)
	maps.Copy(c.kept, h.kept)
	return c
}

// contact is for how long this host has had a session without a break. The zero value has none. Safe for concurrent use.
type contact struct{ since atomic.Pointer[time.Time] }

func (c *contact) begin() {
	now := time.Now()
	c.since.Store(&now)
}

func (c *contact) end() { c.since.Store(nil) }

// lasts says whether a session that ends now has ended because of its host.
func (c *contact) lasts() bool {
	since := c.since.Load()
	return since != nil && time.Since(*since) >= TTL
}

// Announce says that the host is alive until ctx ends, while no other machine is. It then leaves the session to its end: an agent that is
// started again soon was never dead.
func (s *Self) Announce(ctx context.Context, sh store.Shared, log *slog.Logger, c *contact) error {
	for {
		err := s.announce(ctx, sh, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("other hosts may take this one for dead", "error", err)
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// announce is one session.
func (s *Self) announce(ctx context.Context, sh store.Shared, c *contact) (err error) {
	session := s.session
	s.session = nil
	if session == nil {
		if session, err = sh.Join(ctx, TTL); err != nil {
			return err
		}
	}
	c.begin()
	defer c.end()
	for {
		// Where another machine is the host, that one keeps it alive; this one goes on with what it has, and is it when that has gone.
		mine, err := s.claim(ctx, session)
		if err != nil {
			return err
		}
		if mine {
			if err := session.Put(ctx, Path(s.Host), nil); err != nil {
				return err
			}
		}
		select {
		case <-s.vacant:
		case <-session.Done():
			return errors.New("the session with the store has ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Watch calls changed with what is known, first when the store has said who lives, and then after each change, until ctx ends, whose error it returns.
// It begins with what was known. After the store was away, and at the beginning, hosts have grace to announce themselves; so have those whose sessions end
// while the store cannot be trusted to have heard them. Who was dead is not given any.
func Watch(ctx context.Context, s store.Shared, was Hosts, grace time.Duration, trusted func() bool, log *slog.Logger, changed func(Hosts)) error {
	now := was.clone()
	for {
		if err := follow(ctx, s, grace, trusted, &now, changed); err != nil && ctx.Err() == nil {
			log.Warn("the store does not say which hosts are alive: those last known are", "error", err)
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

func follow(ctx context.Context, s store.Shared, grace time.Duration, trusted func() bool, now *Hosts, changed func(Hosts)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := s.WatchShared(ctx, prefix)
	if err != nil {
		return err
	}
	w := newWatch(now, changed)
	var settled <-chan time.Time
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return store.ErrUnavailable
			}
			if w.take(e, trusted()) {
				settled = time.After(grace)
			}
		case <-settled:
			w.settle()
		}
	}
}

// watch is one stream of who is alive.
type watch struct {
	now     *Hosts
	seen    map[uuid.UUID]bool // by this stream
	synced  bool
	changed func(Hosts)
}

func newWatch(now *Hosts, changed func(Hosts)) *watch {
	return &watch{now: now, seen: make(map[uuid.UUID]bool), changed: changed}
}

// take takes an event; grace: hosts have some from now on, since who has no session may have lost it to the store. Whether they are dead shows when it is over.
func (w *watch) take(e store.SharedEvent, trusted bool) (grace bool) {
	if e.Synced {
		w.synced = true
		w.tell()
		return true
	}
	id, err := uuid.Parse(strings.TrimPrefix(e.Path, prefix))
	if err != nil {
		return false // nobody's
	}
	was := w.now.Dead(id)
	switch {
	case !e.Deleted:
		w.seen[id], w.now.alive[id] = true, true
		delete(w.now.kept, id)
	case trusted:
		delete(w.seen, id)
		delete(w.now.alive, id)
	default:
		delete(w.seen, id)
		return true
	}
	if w.synced && w.now.Dead(id) != was {
		w.tell()
	}
	return false
}

// settle is called when grace is over: who has not come back by now does not live.
func (w *watch) settle() {
	w.now.known, w.now.alive = true, maps.Clone(w.seen)
	clear(w.now.kept)
	w.tell()
}

func (w *watch) tell() { w.changed(w.now.clone()) }

// Run is Announce and Watch; and it calls said with what is wrong with the host's name (ErrTaken, ErrWanted), nil when nothing is, after each
// change. Both functions are called by goroutines of their own. was is what was known of hosts before.
func (s *Self) Run(ctx context.Context, sh store.Shared, was Hosts, log *slog.Logger, said func(error), changed func(Hosts)) error {
	var c contact
	s.vacant = make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Announce(ctx, sh, log, &c) })
	g.Go(func() error { return s.watchMachines(ctx, sh, said) })
	g.Go(func() error { return Watch(ctx, sh, was, TTL, c.lasts, log, changed) })
	return g.Wait()
}
