package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/path/worker"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// findPort accepts what people have at hand: name, id, unique id prefix, or the interface; of the ports that the host holds.
func (a *Agent) findPort(name string) (uuid.UUID, error) {
	var found []uuid.UUID
	snap := a.mirror.Snapshot()
	for id, p := range snap.Ports {
		if p.Name == name || id.String() == name || p.Interface == name && p.Host == a.host.ID {
			return id, nil
		}
		if strings.HasPrefix(id.String(), name) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if snap.Partial {
			return uuid.Nil, fmt.Errorf("port %q: %w among those that this host has needed so far (viaduct get port lists all; viaduct trace takes any by its id)", name, debug.ErrNotFound)
		}
		return uuid.Nil, fmt.Errorf("port %q: %w (viaduct get port lists them)", name, debug.ErrNotFound)
	}
	return uuid.Nil, fmt.Errorf("port %q: %d ids begin so", name, len(found))
}

// Trace implements debug.Agent.
func (a *Agent) Trace(ctx context.Context, r debug.TraceRequest) (debug.TraceAnswer, error) {
	id, err := a.findPort(r.Port)
	if whole, e := uuid.Parse(r.Port); errors.Is(err, debug.ErrNotFound) && e == nil {
		id, err = whole, nil // the simulation has it loaded
	}
	if err != nil {
		return debug.TraceAnswer{}, err
	}
	x, err := a.explain(ctx, id, r.Frame)
	if err != nil {
		return debug.TraceAnswer{}, err
	}
	if s := a.mirror.Snapshot(); s.Port(id) == nil && !s.Unknown(view.Thing{Kind: view.ThingPort, ID: id}) {
		return debug.TraceAnswer{}, fmt.Errorf("port %q: %w (viaduct get port lists them)", r.Port, debug.ErrNotFound)
	}
	out := debug.TraceAnswer{Tree: x.Tree, Result: x.Result.String(), Allowed: x.Result == sim.ResultForward || x.Result == sim.ResultConsumed}
	if x.Reason != drop.None {
		out.Reason = x.Reason.String()
	}
	if !x.UserSpace {
		out.Flow = &debug.TraceFlow{Key: x.Key.String(), Mask: x.Mask.String(), Actions: x.Actions}
	}
	for _, t := range x.Tags {
		if s := t.String(); !slices.Contains(out.Tags, s) {
			out.Tags = append(out.Tags, s)
		}
	}
	return out, nil
}

const (
	traceLoads = 5 * time.Second // for how long a trace waits for what the host does not hold
	tracePoll  = 2 * time.Millisecond
)

// explain has a worker answer what would become of a frame, and what it finds missing loaded, as it would be for a packet. Where that does not
// come, the answer says what the host does not hold.
func (a *Agent) explain(ctx context.Context, port uuid.UUID, frame []byte) (x worker.Answer, err error) {
	w, asked, late := a.workers[0], map[view.Thing]bool{}, time.Now().Add(traceLoads)
	for {
		if err := w.Call(ctx, func() { x = w.Explain(port, frame) }); err != nil || len(x.Need) == 0 {
			return x, err
		}
		var news []view.Thing
		for _, t := range x.Need {
			if !asked[t] {
				asked[t] = true
				news = append(news, t)
			}
		}
		switch {
		case !a.mirror.Stats().Following:
			return notHeld(x, "and the store cannot be asked"), nil
		case len(news) > 0 && !a.mirror.Load(uuid.Nil, news):
			return notHeld(x, "and other traces wait for too much"), nil
		case time.Now().After(late):
			return notHeld(x, fmt.Sprintf("and it has not come within %v", traceLoads)), nil
		}
		if err := a.sleep(ctx, tracePoll); err != nil {
			return x, err
		}
	}
}

// notHeld says in the tree what was missing.
func notHeld(x worker.Answer, why string) worker.Answer {
	for _, t := range x.Need {
		x.Tree.Add("prep", "not held", "this host does not hold %s %s, %s: what becomes of the packet is not known here", t.Kind, t.ID, why)
	}
	return x
}
