package document

import (
	"context"
	"slices"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Delete removes the objects that the documents describe, in one transaction; only how they are found
// counts. A port that is described with a binding loses that too. What is not there is an error
// that wraps store.ErrNotFound, unless ifExists.
func (s *Set) Delete(ctx context.Context, st store.Store, ifExists bool) ([]Change, error) {
	p, err := s.planner(ctx, st)
	if err != nil {
		return nil, err
	}
	seen := make(map[model.Key]bool)
	remove := func(o model.Object) {
		if key := model.KeyOf(o); !seen[key] {
			seen[key] = true
			p.remove(o)
		}
	}
	for _, d := range s.Docs {
		name, id := d.Value.identity()
		if id != "" {
			name = id
		}
		if b, ok := d.Value.(*Binding); ok {
			name = b.Port
		}
		o, err := p.stored.FindFor(p.tenant(d), d.Value.Kind(), name)
		if err != nil {
			if !ifExists {
				p.fail(d, "", err)
			}
			continue
		}
		if v, ok := d.Value.(*Port); ok && v.Binding != nil {
			if b := p.stored.Get(model.KindBinding, o.GetMeta().ID); b != nil {
				remove(b)
			}
		}
		remove(o)
	}
	if err := p.errs.orNil(); err != nil {
		return nil, err
	}
	for i := range p.changes {
		p.changes[i].Label = p.stored.Label(p.changes[i].Kind, p.changes[i].ID)
	}
	slices.SortStableFunc(p.ops, func(a, b store.Op) int { return rank(a) - rank(b) })
	if len(p.ops) > 0 {
		_, err = st.Txn(ctx, p.ops...)
	}
	return p.changes, err
}
