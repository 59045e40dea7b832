package etcd

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/wire"
)

// Bundles are kept beside the objects, written in the same transactions:
//
//	<prefix>.of/<bundle kind>/<bundle id>/<kind>/<id>  the object, once more
//	<prefix>.of/<bundle kind>/<bundle id>/.head        empty; its version counts the bundle's changes
//	<prefix>.of                                        there since all this is
//
// so that one range and one watch give a whole bundle. Objects stay readable where they are.

var _ store.Bundles = (*Store)(nil)

const (
	indexRoot = ".of"
	headName  = ".head"
	// indexFormat is what is at indexRoot. "1" lacked bundles of port groups, of all hosts, and of what leaves a host.
	indexFormat = "2"
)

func (s *Store) bundlePrefix(b model.Bundle) string {
	return s.prefix + indexRoot + "/" + string(b.Kind) + "/" + b.ID.String() + "/"
}

func (s *Store) headKey(b model.Bundle) string { return s.bundlePrefix(b) + headName }

func (s *Store) placeKey(b model.Bundle, k model.Key) string {
	return s.bundlePrefix(b) + string(k.Kind) + "/" + k.ID.String()
}

// parsePlace is the inverse of headKey (head: true) and placeKey.
func (s *Store) parsePlace(key []byte) (b model.Bundle, k model.Key, head, ok bool) {
	f := strings.Split(strings.TrimPrefix(string(key), s.prefix+indexRoot+"/"), "/")
	if len(f) < 3 {
		return b, k, false, false
	}
	id, err := uuid.Parse(f[1])
	b = model.Bundle{Kind: model.BundleKind(f[0]), ID: id}
	if err != nil {
		return b, k, false, false
	}
	if len(f) == 3 {
		return b, k, true, f[2] == headName
	}
	o, err := uuid.Parse(f[3])
	k = model.Key{Kind: model.Kind(f[2]), ID: o}
	return b, k, false, err == nil && len(f) == 4 && model.New(k.Kind) != nil
}

// places are the requests that keep bundles in step with a transaction.
func (s *Store) places(plan []model.Placing, changes []model.Change) ([]clientv3.Op, error) {
	var ops []clientv3.Op
	touched, over := make(map[model.Bundle]bool), make(map[model.Bundle]bool)
	for _, c := range changes {
		if c.New == nil {
			for _, b := range model.Ended(model.KeyOf(c.Old)) {
				over[b] = true
			}
		}
	}
	values := make(map[model.Key]string)
	for _, p := range plan {
		if !touched[p.Bundle] {
			touched[p.Bundle] = true
			if over[p.Bundle] {
				ops = append(ops, clientv3.OpDelete(s.headKey(p.Bundle)))
			} else {
				ops = append(ops, clientv3.OpPut(s.headKey(p.Bundle), ""))
			}
		}
		if p.Object == nil {
			ops = append(ops, clientv3.OpDelete(s.placeKey(p.Bundle, p.Key)))
			continue
		}
		v, ok := values[p.Key]
		if !ok {
			text, err := wire.Encode(p.Object)
			if err != nil {
				return nil, err
			}
			v = string(text)
			values[p.Key] = v
		}
		ops = append(ops, clientv3.OpPut(s.placeKey(p.Bundle, p.Key), v))
	}
	for b := range over {
		if !touched[b] {
			ops = append(ops, clientv3.OpDelete(s.headKey(b)))
		}
	}
	return ops, nil
}

// Digests implements store.Bundles.
func (s *Store) Digests(ctx context.Context, bs ...model.Bundle) ([]store.Digest, error) {
	ds := make([]store.Digest, len(bs))
	for from := 0; from < len(bs); from += maxReads {
		part := bs[from:min(from+maxReads, len(bs))]
		ops := make([]clientv3.Op, len(part))
		for i, b := range part {
			ops[i] = clientv3.OpGet(s.bundlePrefix(b), clientv3.WithPrefix(), clientv3.WithKeysOnly())
		}
		bounded, cancel := context.WithTimeout(ctx, s.timeout)
		r, err := s.client.Txn(bounded).Then(ops...).Commit()
		cancel()
		if err != nil {
			return nil, failure(ctx, err)
		}
		for i, x := range r.Responses {
			d := &ds[from+i]
			for _, kv := range x.GetResponseRange().Kvs {
				_, _, head, ok := s.parsePlace(kv.Key)
				switch {
				case ok && head:
					d.Seq = kv.Version
				case ok:
					d.Add(kv.ModRevision)
				}
			}
		}
	}
	return ds, nil
}

// indexed reports whether the store has bundles. An error says that this version cannot use them.
func (s *Store) indexed(ctx context.Context) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := s.client.Get(bounded, s.prefix+indexRoot)
	switch {
	case err != nil:
		return false, failure(ctx, err)
	case len(r.Kvs) == 0, string(r.Kvs[0].Value) == "1":
		return false, nil
	case string(r.Kvs[0].Value) != indexFormat:
		return false, fmt.Errorf("%w: its index is of format %q, this version knows %q", store.ErrUnavailable, r.Kvs[0].Value, indexFormat)
	}
	return true, nil
}

// followable is nil when bundles can be followed: they are there, or nobody has written anything yet.
func (s *Store) followable(ctx context.Context) error {
	ok, err := s.indexed(ctx)
	if ok || err != nil {
		return err
	}
	guard, _, err := s.readGuard(ctx)
	if err == nil && guard != 0 {
		err = fmt.Errorf("%w: it was written by an earlier version, and has no such index of what belongs together: start the server, which makes it", store.ErrUnavailable)
	}
	return err
}
