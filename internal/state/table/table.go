// Package table is what learnt state is kept in: a concurrent map whose entries belong to owners,
// are held by references and expire after their last use. Reads take no lock and do not
// allocate. It has no clock and no goroutine: time comes with the calls.
package table

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
)

// dead marks an entry that is being removed: nobody can take a reference any more.
const dead = -1

const minBuckets = 16

// Table maps K to V. All methods are safe for concurrent use.
type Table[K comparable, V any] struct {
	seed maphash.Seed

	buckets atomic.Pointer[[]bucket[K, V]]

	mu      sync.Mutex // serialises writers
	max     int        // entries per owner; 0: no bound
	n       int
	owned   map[uuid.UUID]int
	refused atomic.Uint64
}

// bucket is a short list that is replaced as a whole, so that readers need no lock.
type bucket[K comparable, V any] struct {
	entries atomic.Pointer[[]*entry[K, V]]
}

type entry[K comparable, V any] struct {
	key   K
	value V
	owner uuid.UUID
	refs  *atomic.Int64 // shared with the entry that replaces this one
	used  *atomic.Int64
}

// New makes a table in which each owner may have max entries; 0 means no bound.
func New[K comparable, V any](max int) *Table[K, V] {
	t := &Table[K, V]{max: max, seed: maphash.MakeSeed(), owned: map[uuid.UUID]int{}}
	b := make([]bucket[K, V], minBuckets)
	t.buckets.Store(&b)
	return t
}

// SetMax changes how many entries each owner may have. Who has more keeps them, and gets no new ones.
func (t *Table[K, V]) SetMax(max int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.max = max
}

// Get finds the value of k.
func (t *Table[K, V]) Get(k K) (v V, ok bool) {
	if e := t.find(k); e != nil {
		return e.value, true
	}
	return v, false
}

func (t *Table[K, V]) find(k K) *entry[K, V] {
	if es := t.bucket(*t.buckets.Load(), k).entries.Load(); es != nil {
		for _, e := range *es {
			if e.key == k {
				return e
			}
		}
	}
	return nil
}

func (t *Table[K, V]) bucket(bs []bucket[K, V], k K) *bucket[K, V] {
	return &bs[maphash.Comparable(t.seed, k)&uint64(len(bs)-1)]
}

// Put stores v for k on behalf of owner and counts as a use at time now (ns). It returns the
// value that was there. References to k stay. ok is false when the owner already has
// as many entries as it may: nothing is changed, the refusal is counted.
func (t *Table[K, V]) Put(k K, v V, owner uuid.UUID, now int64) (old V, had, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.find(k)
	if was != nil {
		old, had = was.value, true
	}
	if (was == nil || was.owner != owner) && t.max > 0 && t.owned[owner] >= t.max {
		t.refused.Add(1)
		return old, had, false
	}
	e := &entry[K, V]{key: k, value: v, owner: owner}
	if was != nil {
		e.refs, e.used = was.refs, was.used
		t.unlink(was)
	} else {
		e.refs, e.used = new(atomic.Int64), new(atomic.Int64)
	}
	e.used.Store(now)
	t.link(e)
	return old, had, true
}

// Ref holds k until Unref: it does not expire meanwhile. False when there is no k.
func (t *Table[K, V]) Ref(k K) bool {
	e := t.find(k)
	if e == nil {
		return false
	}
	for {
		n := e.refs.Load()
		if n == dead {
			return false
		}
		if e.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Unref gives a reference back, which counts as a use at time now. Without a reference, or
// without k, it does nothing.
func (t *Table[K, V]) Unref(k K, now int64) {
	e := t.find(k)
	if e == nil {
		return
	}
	e.used.Store(now)
	for {
		n := e.refs.Load()
		if n <= 0 || e.refs.CompareAndSwap(n, n-1) {
			return
		}
	}
}

// Held reports whether somebody has a reference to k.
func (t *Table[K, V]) Held(k K) bool {
	e := t.find(k)
	return e != nil && e.refs.Load() > 0
}

// Delete removes k, held or not.
func (t *Table[K, V]) Delete(k K) (was V, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.find(k)
	if e == nil {
		return was, false
	}
	e.refs.Store(dead)
	t.unlink(e)
	return e.value, true
}

// Expire removes the entries without a reference that were last used at or before the time
// given, and calls gone for each, after it let go of its lock. It looks at every entry.
func (t *Table[K, V]) Expire(before int64, gone func(K, V)) {
	t.remove(gone, func(e *entry[K, V]) bool {
		return e.used.Load() <= before && e.refs.CompareAndSwap(0, dead)
	})
}

// DeleteOwner removes all that belongs to owner, held or not, and calls gone for each.
func (t *Table[K, V]) DeleteOwner(owner uuid.UUID, gone func(K, V)) {
	t.remove(gone, func(e *entry[K, V]) bool {
		if e.owner != owner {
			return false
		}
		e.refs.Store(dead)
		return true
	})
}

func (t *Table[K, V]) remove(gone func(K, V), dies func(*entry[K, V]) bool) {
	var removed []*entry[K, V]
	t.mu.Lock()
	t.each(func(e *entry[K, V]) bool {
		if dies(e) {
			t.unlink(e)
			removed = append(removed, e)
		}
		return true
	})
	t.mu.Unlock()
	for _, e := range removed {
		gone(e.key, e.value)
	}
}

// Range calls f for the entries until it returns false. Entries that come or go meanwhile
// may be missed. f may call any method.
func (t *Table[K, V]) Range(f func(k K, v V) bool) {
	t.each(func(e *entry[K, V]) bool { return f(e.key, e.value) })
}

func (t *Table[K, V]) each(f func(*entry[K, V]) bool) {
	bs := *t.buckets.Load()
	for i := range bs {
		es := bs[i].entries.Load()
		if es == nil {
			continue
		}
		for _, e := range *es {
			if !f(e) {
				return
			}
		}
	}
}

// Len is the number of entries.
func (t *Table[K, V]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// Owned is the number of owner's entries.
func (t *Table[K, V]) Owned(owner uuid.UUID) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.owned[owner]
}

// Refused counts the Puts beyond an owner's bound.
func (t *Table[K, V]) Refused() uint64 { return t.refused.Load() }

// link and unlink are called with mu held.
func (t *Table[K, V]) link(e *entry[K, V]) {
	t.n++
	t.owned[e.owner]++
	bs := *t.buckets.Load()
	if t.n > len(bs) {
		bs = t.grow(bs)
	}
	add(t.bucket(bs, e.key), e)
}

func (t *Table[K, V]) unlink(e *entry[K, V]) {
	t.n--
	if t.owned[e.owner]--; t.owned[e.owner] == 0 {
		delete(t.owned, e.owner)
	}
	b := t.bucket(*t.buckets.Load(), e.key)
	var rest []*entry[K, V]
	for _, x := range *b.entries.Load() {
		if x != e {
			rest = append(rest, x)
		}
	}
	b.entries.Store(&rest)
}

func (t *Table[K, V]) grow(old []bucket[K, V]) []bucket[K, V] {
	bs := make([]bucket[K, V], 2*len(old))
	t.each(func(e *entry[K, V]) bool {
		add(t.bucket(bs, e.key), e)
		return true
	})
	t.buckets.Store(&bs)
	return bs
}

func add[K comparable, V any](b *bucket[K, V], e *entry[K, V]) {
	var es []*entry[K, V]
	if old := b.entries.Load(); old != nil {
		es = append(make([]*entry[K, V], 0, len(*old)+1), *old...)
	}
	es = append(es, e)
	b.entries.Store(&es)
}
