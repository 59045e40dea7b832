package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// A host is found by its name, and two machines of one name would both take themselves for it. So each machine claims the host, under
// its session with the store, and one of them gets it:
//
//	machine/<host>          the id of the machine that is the host
//	machine/<host>/is       the same, with what people know it by
//	machine/<host>/refused  another one that would have been it, too
//
// An agent that is started again on the same machine takes over from its earlier session.

func machinePath(host uuid.UUID) string { return "machine/" + host.String() }

const (
	isPath      = "/is"
	refusedPath = "/refused"
)

var (
	// ErrTaken says that another machine is the host.
	ErrTaken = errors.New("the host's name is taken")
	// ErrWanted says that this machine is the host, and another one would have been it, too.
	ErrWanted = errors.New("the host's name is wanted by another machine, which was refused")
)

// DefaultPatience is for how long a machine that is not heard of any more may have a session.
const DefaultPatience = TTL + 2*time.Second

// Self is this machine, for a host. Of its functions one is called at a time.
type Self struct {
	Host    uuid.UUID
	Machine Machine
	// Patience is how long Enter waits for another machine to be gone; 0: DefaultPatience.
	Patience time.Duration

	session store.Session // that Enter has begun; nil: none
	vacant  chan struct{} // holds one: no machine is the host
}

// Enter begins a session in which the machine is the host. While another one is, it waits until that one's session may have ended: the
// machine itself may have been it, before it started anew; waiting, when not nil, is called once then. The error wraps ErrTaken when the other one lives, and that one is told
// (Run). It ends soon with others of package store's, and with ctx.
func (s *Self) Enter(ctx context.Context, sh store.Shared, waiting func(other Machine)) error {
	session, err := sh.Join(ctx, TTL)
	if err != nil {
		return err
	}
	until := time.After(cmp.Or(s.Patience, DefaultPatience))
	for {
		mine, err := s.claim(ctx, session)
		if err != nil {
			return err
		}
		if mine {
			s.session = session
			return nil
		}
		other, err := s.other(ctx, sh, until, waiting)
		waiting = nil
		if errors.Is(err, ErrTaken) {
			// The session is left to its end, so that the other has time to read it.
			err = errors.Join(fmt.Errorf("%w: %s is alive under it", ErrTaken, other), session.Put(ctx, machinePath(s.Host)+refusedPath, s.Machine.text()))
		}
		if err != nil {
			return err
		}
	}
}

// claim has the machine be the host, and reports whether it is.
func (s *Self) claim(ctx context.Context, x store.Session) (mine bool, err error) {
	path := machinePath(s.Host)
	mine, err = x.Claim(ctx, path, []byte(s.Machine.ID))
	if err != nil || !mine {
		return false, err
	}
	return true, x.Put(ctx, path+isPath, s.Machine.text())
}

// other returns which machine is the host, without an error as soon as none is any more.
func (s *Self) other(ctx context.Context, sh store.Shared, until <-chan time.Time, waiting func(Machine)) (Machine, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := sh.WatchShared(ctx, machinePath(s.Host))
	if err != nil {
		return Machine{}, err
	}
	o := occupants{self: s}
	var late <-chan time.Time // after it is known who it is
	for {
		if o.synced {
			late = until
		}
		select {
		case e, ok := <-events:
			if !ok {
				return Machine{}, errors.Join(store.ErrUnavailable, ctx.Err())
			}
			o.take(e)
			switch {
			case !o.synced:
			case !o.held:
				return Machine{}, nil
			case e.Synced && waiting != nil:
				waiting(o.other())
			}
		case <-late:
			return o.other(), ErrTaken
		}
	}
}

// occupants are what the store says of a host's machines.
type occupants struct {
	self    *Self
	synced  bool
	held    bool    // one is the host
	id      string  // its
	is      Machine // it, as people know it; may be out of date
	refused Machine // without an ID: none
}

// other is the one that is the host.
func (o *occupants) other() Machine {
	if o.is.ID == o.id {
		return o.is
	}
	return Machine{ID: o.id}
}

// take takes an event of the watch at machinePath.
func (o *occupants) take(e store.SharedEvent) {
	if e.Synced {
		o.synced = true
		return
	}
	switch strings.TrimPrefix(e.Path, machinePath(o.self.Host)) {
	case "":
		o.held, o.id = !e.Deleted, string(e.Value)
	case isPath:
		o.is = parseMachine(e.Value)
	case refusedPath:
		o.refused = parseMachine(e.Value)
	}
}

// err says what is wrong: nil, nothing.
func (o *occupants) err() error {
	switch {
	case o.held && o.id != o.self.Machine.ID:
		return fmt.Errorf("%w: %s is alive under it", ErrTaken, o.other())
	case o.refused.ID != "" && o.refused.ID != o.self.Machine.ID: // it was itself while an earlier session had not ended
		return fmt.Errorf("%w: %s", ErrWanted, o.refused)
	}
	return nil
}

// watchMachines calls said with what is wrong, nil when nothing is, after each change, until ctx ends.
func (s *Self) watchMachines(ctx context.Context, sh store.Shared, said func(error)) error {
	for {
		events, err := sh.WatchShared(ctx, machinePath(s.Host))
		if err == nil {
			o := occupants{self: s}
			for e := range events {
				if o.take(e); !o.synced {
					continue
				}
				said(o.err())
				if !o.held { // even if this machine was it: one agent of two that have begun on it has taken it along
					select {
					case s.vacant <- struct{}{}:
					default:
					}
				}
			}
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}
