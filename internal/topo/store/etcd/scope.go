package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// judged is what transactions are checked against: the store as it was at a revision of the guard.
type judged struct {
	graph *model.Graph
	index *model.Index // of graph
	guard int64        // mod revision of the guard key; 0: it does not exist
}

// readScope reads what it takes to judge ops, at one revision, where that is little; nil when everything is to be read. An agent that binds and moves ports
// does not come to hold the cloud for it.
func (s *Store) readScope(ctx context.Context, ops []model.Op) (*judged, error) {
	scope, ok := model.ScopeOf(ops)
	if !ok || 2+len(scope.Keys)+len(scope.Bundles) > maxReads {
		return nil, nil
	}
	gets := []clientv3.Op{clientv3.OpGet(s.guardKey(), clientv3.WithKeysOnly()), clientv3.OpGet(s.prefix + indexRoot)}
	for _, b := range scope.Bundles {
		gets = append(gets, clientv3.OpGet(s.bundlePrefix(b), clientv3.WithPrefix(), clientv3.WithLimit(pageSize)))
	}
	for _, k := range scope.Keys { // after the bundles: revisions in these are not the objects'
		gets = append(gets, clientv3.OpGet(s.keyString(k)))
	}
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := s.client.Txn(bounded).Then(gets...).Commit()
	if err != nil {
		return nil, failure(ctx, err)
	}
	guard, format := r.Responses[0].GetResponseRange().Kvs, r.Responses[1].GetResponseRange().Kvs
	if len(guard) == 0 || len(format) == 0 || string(format[0].Value) != indexFormat {
		return nil, nil // there are no bundles yet: see load
	}
	g := model.NewGraph()
	for i, x := range r.Responses[2:] {
		part := x.GetResponseRange()
		if part.More {
			return nil, nil
		}
		for _, kv := range part.Kvs {
			key := kv.Key
			if i < len(scope.Bundles) {
				_, k, head, ok := s.parsePlace(kv.Key)
				if !ok || head {
					continue
				}
				key = []byte(s.keyString(k))
			}
			if o := s.object(key, kv.Value, kv.ModRevision); o != nil {
				g.Load(o)
			}
		}
	}
	return &judged{graph: g, index: model.NewIndex(g), guard: guard[0].ModRevision}, nil
}
