package conf

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// How layers are kept, one key of the store for each value, so that etcdctl shows them:
//
//	.conf/template/NAME       exists with the template
//	.conf/template/NAME/KEY   a value
//	.conf/host/ID             the template that is assigned to the host
//	.conf/host/ID/KEY         a value
const (
	root         = ".conf/"
	guard        = root + ".revision"
	templateRoot = root + "template/"
	hostRoot     = root + "host/"
)

// encode is the state as the store has it.
func (s *State) encode() map[string]string {
	all := make(map[string]string)
	for name, l := range s.Templates {
		all[templateRoot+name] = ""
		for k, v := range l {
			all[templateRoot+name+"/"+k] = v
		}
	}
	for id, h := range s.Hosts {
		at := hostRoot + id.String()
		if h.Template != "" {
			all[at] = h.Template
		}
		for k, v := range h.Values {
			all[at+"/"+k] = v
		}
	}
	return all
}

// decodeState is its inverse. What is not ours is left alone.
func decodeState(all map[string]string) *State {
	s := NewState()
	for key, v := range all {
		if at, ok := strings.CutPrefix(key, templateRoot); ok {
			name, k, isValue := strings.Cut(at, "/")
			if s.Templates[name] == nil {
				s.Templates[name] = Layer{}
			}
			if isValue {
				s.Templates[name][k] = v
			}
		} else if at, ok := strings.CutPrefix(key, hostRoot); ok {
			name, k, isValue := strings.Cut(at, "/")
			id, err := uuid.Parse(name)
			if err != nil {
				continue
			}
			h := s.Hosts[id]
			if h.Values == nil {
				h.Values = Layer{}
			}
			if isValue {
				h.Values[k] = v
			} else {
				h.Template = v
			}
			s.Hosts[id] = h
		}
	}
	return s
}

// Load reads all layers and the revision that they are of.
func Load(ctx context.Context, k store.Keys) (*State, int64, error) {
	all, rev, err := k.ReadKeys(ctx, templateRoot, hostRoot)
	if err != nil {
		return nil, 0, fmt.Errorf("configuration: %w", err)
	}
	return decodeState(all), rev, nil
}

// ErrInitialized says that there has been configuration before.
var ErrInitialized = errors.New("there is configuration already")

// Init makes the changes when nobody has ever made any, else it fails with ErrInitialized.
func Init(ctx context.Context, k store.Keys, changes []Change) error {
	all, rev, err := k.ReadKeys(ctx, root)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		return ErrInitialized
	}
	s := NewState()
	if err := s.Apply(changes); err != nil {
		return err
	}
	if _, err = k.WriteKeys(ctx, guard, rev, difference(nil, s.encode())); errors.Is(err, store.ErrConflict) {
		return ErrInitialized
	}
	return err
}

// Updated is what Update has done.
type Updated struct {
	Revision      int64
	Changed       bool // anything at all
	Before, After *State
}

// maxAttempts bounds how often changes are made anew because another writer was faster.
const maxAttempts = 50

// Update makes all changes or none. hosts lists those that exist: a change of another one is refused with an error that wraps
// store.ErrNotFound, and what is left of a host that has been deleted goes.
func Update(ctx context.Context, k store.Keys, hosts func(context.Context) (map[uuid.UUID]bool, error), changes []Change) (Updated, error) {
	for range maxAttempts {
		u, err := update(ctx, k, hosts, changes)
		if !errors.Is(err, store.ErrConflict) {
			return u, err
		}
		if err := ctx.Err(); err != nil {
			return u, err
		}
	}
	return Updated{}, fmt.Errorf("%w: other writers were faster %d times", store.ErrConflict, maxAttempts)
}

func update(ctx context.Context, k store.Keys, hosts func(context.Context) (map[uuid.UUID]bool, error), changes []Change) (u Updated, err error) {
	if u.Before, u.Revision, err = Load(ctx, k); err != nil {
		return u, err
	}
	u.After = u.Before.clone()
	// After the layers: a host that has some, and is not there now, was deleted.
	exist, err := hosts(ctx)
	if err != nil {
		return u, err
	}
	for id := range u.After.Hosts {
		if !exist[id] {
			delete(u.After.Hosts, id)
		}
	}
	for i := range changes {
		if id := changes[i].Host; id != uuid.Nil && !exist[id] {
			return u, fmt.Errorf("host %s: %w", id, store.ErrNotFound)
		}
	}
	if err := u.After.Apply(changes); err != nil {
		return u, err
	}
	diff := difference(u.Before.encode(), u.After.encode())
	if len(diff) == 0 {
		return u, nil
	}
	u.Changed = true
	u.Revision, err = k.WriteKeys(ctx, guard, u.Revision, diff)
	return u, err
}

// difference is what makes b of a.
func difference(a, b map[string]string) map[string]*string {
	d := make(map[string]*string)
	for k := range a {
		if _, ok := b[k]; !ok {
			d[k] = nil
		}
	}
	for k, v := range b {
		if have, ok := a[k]; !ok || have != v {
			d[k] = &v
		}
	}
	return d
}

// Keys are those that have come, gone or changed in some layer, and those of templates that were assigned or taken away; sorted.
func (u *Updated) Keys() []string {
	names := make(map[string]bool)
	for at := range difference(u.Before.encode(), u.After.encode()) {
		if name := at[strings.LastIndex(at, "/")+1:]; strings.HasPrefix(name, "agent.") {
			names[name] = true
		}
	}
	for id := range u.After.Hosts {
		before, after := u.Before.Hosts[id].Template, u.After.Hosts[id].Template
		if before == after {
			continue
		}
		for _, l := range []Layer{u.Before.Templates[before], u.After.Templates[after]} {
			for name := range l {
				names[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
