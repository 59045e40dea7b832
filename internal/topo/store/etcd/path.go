package etcd

import (
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// keyString is where an object is.
func (s *Store) keyString(k model.Key) string {
	return s.prefix + string(k.Kind) + "/" + k.ID.String()
}

// parseKey is its inverse; false for the guard and for what is not ours.
func (s *Store) parseKey(key []byte) (model.Key, bool) {
	kind, id, ok := strings.Cut(strings.TrimPrefix(string(key), s.prefix), "/")
	if !ok || model.New(model.Kind(kind)) == nil {
		return model.Key{}, false
	}
	u, err := uuid.Parse(id)
	return model.Key{Kind: model.Kind(kind), ID: u}, err == nil
}
