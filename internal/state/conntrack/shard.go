package conntrack

import (
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

const minBuckets = 8

// shard is a hash table of directions: each connection is in two, or twice in one.
type shard struct {
	mu      sync.Mutex
	n       int
	buckets atomic.Pointer[[]bucket]
}

type bucket struct{ head atomic.Pointer[link] }

// link is one direction of a connection in a bucket. Growing makes new ones, so that a reader stays on
// the list that it began with.
type link struct {
	e     *entry
	reply bool
	hash  uint64
	next  atomic.Pointer[link]
}

func (l *link) is(k tag.Kind, device uuid.UUID, t *match.Tuple) bool {
	e := l.e
	return *e.direction(l.reply) == *t && e.Device == device && e.Kind == k && e.state.Load()&dead == 0
}

// at is the bucket of a hash, whose low bits have chosen the shard.
func at(bs []bucket, hash uint64) *bucket { return &bs[hash/shards&uint64(len(bs)-1)] }

func (s *shard) find(hash uint64, k tag.Kind, device uuid.UUID, t *match.Tuple) *link {
	bs := s.buckets.Load()
	if bs == nil {
		return nil
	}
	for l := at(*bs, hash).head.Load(); l != nil; l = l.next.Load() {
		if l.hash == hash && l.is(k, device, t) {
			return l
		}
	}
	return nil
}

// insert and remove are called with mu held.
func (s *shard) insert(e *entry, reply bool, hash uint64) {
	bs := s.buckets.Load()
	if bs == nil || s.n >= len(*bs) {
		bs = s.grow(bs)
	}
	s.n++
	l := &e.links[0]
	if reply {
		l = &e.links[1]
	}
	push(*bs, l, e, reply, hash)
}

// push puts a link that nobody sees yet in front of its bucket.
func push(bs []bucket, l *link, e *entry, reply bool, hash uint64) {
	b := at(bs, hash)
	l.e, l.reply, l.hash = e, reply, hash
	l.next.Store(b.head.Load())
	b.head.Store(l)
}

func (s *shard) grow(old *[]bucket) *[]bucket {
	n := minBuckets
	if old != nil {
		n = 2 * len(*old)
	}
	bs := make([]bucket, n)
	fresh := make([]link, s.n)
	s.each(func(l *link) {
		push(bs, &fresh[0], l.e, l.reply, l.hash)
		fresh = fresh[1:]
	})
	s.buckets.Store(&bs)
	return &bs
}

func (s *shard) remove(e *entry, reply bool, hash uint64) {
	bs := s.buckets.Load()
	if bs == nil {
		return
	}
	from := &at(*bs, hash).head
	for l := from.Load(); l != nil; l = from.Load() {
		if l.e == e && l.reply == reply {
			from.Store(l.next.Load())
			s.n--
			return
		}
		from = &l.next
	}
}

func (s *shard) each(f func(*link)) {
	bs := s.buckets.Load()
	if bs == nil {
		return
	}
	for i := range *bs {
		for l := (*bs)[i].head.Load(); l != nil; l = l.next.Load() {
			f(l)
		}
	}
}

// filter lists the connections whose original direction is here and of which f is true.
func (s *shard) filter(f func(*entry) bool) (es []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each(func(l *link) {
		if !l.reply && f(l.e) {
			es = append(es, l.e)
		}
	})
	return es
}
