package mem

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

var _ store.Keys = (*Store)(nil)

// text is what a Server keeps for store.Keys. Guarded by Server.mu.
type text struct {
	values  map[string]string
	changed map[string]int64 // revision by key, of deleted ones too
}

// ReadKeys implements store.Keys.
func (s *Store) ReadKeys(ctx context.Context, prefixes ...string) (map[string]string, int64, error) {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return nil, 0, err
	}
	all := make(map[string]string)
	for k, v := range s.srv.text.values {
		if under(k, prefixes) {
			all[k] = v
		}
	}
	return all, s.srv.revision, nil
}

func under(key string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}

// WriteKeys implements store.Keys.
func (s *Store) WriteKeys(ctx context.Context, guard string, since int64, changes map[string]*string) (int64, error) {
	v := s.srv
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return 0, err
	}
	all := maps.Clone(changes)
	if all == nil {
		all = make(map[string]*string)
	}
	all[guard] = new(string)
	for key := range all {
		if !strings.HasPrefix(key, ".") {
			return 0, fmt.Errorf("%w: key %q does not begin with a dot", store.ErrInvalid, key)
		}
	}
	if v.text.changed[guard] > since {
		return 0, fmt.Errorf("%w: somebody else has written since revision %d", store.ErrConflict, since)
	}
	v.write(all)
	return v.revision, nil
}

// write is called with mu held.
func (v *Server) write(changes map[string]*string) {
	v.revision++
	for key, value := range changes {
		if value == nil {
			delete(v.text.values, key)
		} else {
			v.text.values[key] = *value
		}
		v.text.changed[key] = v.revision
	}
	for c := range v.clients {
		for w := range c.keyWatches {
			for key := range changes {
				if under(key, w.prefixes) {
					w.tell(v.revision)
					break
				}
			}
		}
	}
}

// keyWatch is one of WatchKeys. Guarded by Server.mu; its channel has room for one revision.
type keyWatch struct {
	prefixes []string
	news     chan int64
}

func (w *keyWatch) tell(rev int64) {
	select {
	case <-w.news: // nobody has taken the older one
	default:
	}
	w.news <- rev
}

// WatchKeys implements store.Keys.
func (s *Store) WatchKeys(ctx context.Context, prefixes ...string) (<-chan int64, error) {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if err := s.reachable(ctx); err != nil {
		return nil, err
	}
	w := &keyWatch{prefixes, make(chan int64, 1)}
	w.tell(s.srv.revision)
	s.keyWatches[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		s.srv.mu.Lock()
		defer s.srv.mu.Unlock()
		s.endKeyWatch(w)
	})
	return w.news, nil
}

// endKeyWatch is called with mu held.
func (s *Store) endKeyWatch(w *keyWatch) {
	if _, ok := s.keyWatches[w]; ok {
		delete(s.keyWatches, w)
		close(w.news)
	}
}

// Announce implements store.Keys.
func (s *Store) Announce(ctx context.Context, key string, values <-chan string) error {
	defer s.put(key, nil)
	for {
		select {
		case v, ok := <-values:
			if !ok {
				return nil
			}
			for s.put(key, &v) != nil {
				select {
				case <-time.After(time.Millisecond): // cut off
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Store) put(key string, value *string) error {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if s.away {
		return store.ErrUnavailable
	}
	s.srv.write(map[string]*string{key: value})
	return nil
}
