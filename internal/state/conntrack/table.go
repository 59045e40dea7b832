package conntrack

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// Shards keep short what a writer locks, and what growing moves at once.
const (
	shards     = 256
	tickShards = shards / 8 // that one Tick looks at
)

// Table holds the connections of all devices. Safe for concurrent use; lookups take no lock and do
// not allocate. Times are a clock's, in ns.
type Table struct {
	cfg    atomic.Pointer[Config]
	seed   maphash.Seed
	shards [shards]shard

	mu      sync.Mutex
	owned   map[uuid.UUID]int
	n       int
	cursor  int // of Tick
	refused atomic.Uint64
}

// New makes an empty table.
func New(cfg Config) *Table {
	t := &Table{seed: maphash.MakeSeed(), owned: map[uuid.UUID]int{}}
	t.cfg.Store(&cfg)
	return t
}

// Reconfigure changes bounds and timeouts, for the connections that are there too; OnRemove stays.
func (t *Table) Reconfigure(cfg Config) {
	cfg.OnRemove = t.cfg.Load().OnRemove
	t.cfg.Store(&cfg)
}

type hashed struct {
	kind   tag.Kind
	device uuid.UUID
	tuple  match.Tuple
}

func (t *Table) hash(k tag.Kind, device uuid.UUID, tu *match.Tuple) uint64 {
	return maphash.Comparable(t.seed, hashed{k, device, *tu})
}

func (t *Table) find(k tag.Kind, device uuid.UUID, tu *match.Tuple) *link {
	h := t.hash(k, device, tu)
	return t.shards[h%shards].find(h, k, device, tu)
}

// Lookup finds the connection of a device that has the tuple as one of its directions.
func (t *Table) Lookup(k tag.Kind, device uuid.UUID, tu *match.Tuple) (f Found, ok bool) {
	l := t.find(k, device, tu)
	if l == nil {
		return f, false
	}
	return Found{Other: *l.e.direction(!l.reply), Reply: l.reply, Replied: l.e.state.Load()&replied != 0}, true
}

// Verdict is how an Add ended.
type Verdict uint8

// Verdicts.
const (
	Added    Verdict = iota
	Known            // the very connection was there
	Conflict         // one of the directions belongs to another connection: look again
	Full             // the owner has as many as it may: counted
)

// Add puts a connection in. Two that claim the same direction at the same time are not both added.
func (t *Table) Add(c Conn, now int64) Verdict {
	ho, hr := t.hash(c.Kind, c.Device, &c.Orig), t.hash(c.Kind, c.Device, &c.Reply)
	so, sr := t.lock(ho, hr)
	defer unlock(so, sr)
	if l := so.find(ho, c.Kind, c.Device, &c.Orig); l != nil {
		if l.e.Orig == c.Orig && l.e.Reply == c.Reply {
			return Known
		}
		return Conflict
	}
	if sr.find(hr, c.Kind, c.Device, &c.Reply) != nil {
		return Conflict
	}
	if !t.own(c.Owner) {
		t.refused.Add(1)
		return Full
	}
	e := &entry{Conn: c}
	e.used.Store(now)
	sr.insert(e, true, hr)
	so.insert(e, false, ho) // last, to be found first by what answers itself
	return Added
}

// lock takes the locks of two hashes' shards, in one order for everybody; unlock gives them back.
func (t *Table) lock(a, b uint64) (sa, sb *shard) {
	sa, sb = &t.shards[a%shards], &t.shards[b%shards]
	first, second := sa, sb
	if a%shards > b%shards {
		first, second = sb, sa
	}
	first.mu.Lock()
	if first != second {
		second.mu.Lock()
	}
	return sa, sb
}

func unlock(sa, sb *shard) {
	sa.mu.Unlock()
	if sa != sb {
		sb.mu.Unlock()
	}
}

func (t *Table) own(owner uuid.UUID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if max := t.cfg.Load().MaxPerOwner; max > 0 && t.owned[owner] >= max {
		return false
	}
	t.owned[owner]++
	t.n++
	return true
}

func (t *Table) disown(owner uuid.UUID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.owned[owner]--; t.owned[owner] == 0 {
		delete(t.owned, owner)
	}
}

func (t *Table) of(tg *tag.Tag) *link {
	tu := tg.Tuple()
	return t.find(tg.Kind, tg.ID, &tu)
}

// Ref holds the connection that has a direction as named by tg until Unref; false when there is none.
func (t *Table) Ref(tg *tag.Tag) bool {
	l := t.of(tg)
	return l != nil && l.e.ref()
}

// Unref is the counterpart of Ref: the connection's time runs from the last one.
func (t *Table) Unref(tg *tag.Tag, now int64) {
	if l := t.of(tg); l != nil {
		l.e.used.Store(now)
		l.e.unref()
	}
}

// Has reports whether there is a connection with the direction named by tg.
func (t *Table) Has(tg *tag.Tag) bool { return t.of(tg) != nil }

// Replied notes that an answer was seen.
func (t *Table) Replied(tg *tag.Tag) {
	if l := t.of(tg); l != nil {
		l.e.state.Or(replied)
	}
}

// Ended notes that TCP ends in the direction named by tg: by FIN, or by RST, which ends both.
// It appends what changed, once both have ended and the connection is gone, to tags.
func (t *Table) Ended(tg *tag.Tag, rst bool, tags []tag.Tag) []tag.Tag {
	l := t.of(tg)
	if l == nil {
		return tags
	}
	flag := finOrig
	if l.reply {
		flag = finReply
	}
	if rst {
		flag = reset
	}
	l.e.state.Or(flag)
	if l.e.closed() {
		return t.remove(l.e, true, tags)
	}
	return tags
}

// Get returns the connection that has a direction as named by tg, and what has been seen of it.
func (t *Table) Get(tg *tag.Tag) (c Conn, s State, ok bool) {
	l := t.of(tg)
	if l == nil {
		return c, 0, false
	}
	return l.e.Conn, State(l.e.state.Load()) & seen, true
}

// Merge notes what another host has seen of the connection with a direction as named by tg, which counts as a use.
// It appends what changed, once the connection has ended, to tags.
func (t *Table) Merge(tg *tag.Tag, s State, now int64, tags []tag.Tag) []tag.Tag {
	l := t.of(tg)
	if l == nil {
		return tags
	}
	l.e.used.Store(now)
	l.e.state.Or(uint32(s & seen))
	if l.e.closed() {
		return t.remove(l.e, true, tags)
	}
	return tags
}

// End removes the connection that has a direction as named by tg and was as its other one, and appends what changed to tags.
func (t *Table) End(tg *tag.Tag, was *match.Tuple, tags []tag.Tag) []tag.Tag {
	if l := t.of(tg); l != nil && *l.e.direction(!l.reply) == *was {
		return t.remove(l.e, true, tags)
	}
	return tags
}

// remove takes a connection out, held or not, or only when nobody holds it.
func (t *Table) remove(e *entry, evenHeld bool, tags []tag.Tag) []tag.Tag {
	if !e.kill(evenHeld) {
		return tags
	}
	ho, hr := t.hash(e.Kind, e.Device, &e.Orig), t.hash(e.Kind, e.Device, &e.Reply)
	so, sr := t.lock(ho, hr)
	so.remove(e, false, ho)
	sr.remove(e, true, hr)
	unlock(so, sr)
	t.disown(e.Owner)
	if removed := t.cfg.Load().OnRemove; removed != nil {
		removed(&e.Conn)
	}
	return append(tags, tag.Of(e.Kind, e.Device, &e.Orig), tag.Of(e.Kind, e.Device, &e.Reply))
}

// Forget removes the connections of a device that is gone, and those that a port that is gone owned.
func (t *Table) Forget(id uuid.UUID, tags []tag.Tag) []tag.Tag {
	for i := range t.shards {
		for _, e := range t.shards[i].filter(func(e *entry) bool { return e.Device == id || e.Owner == id }) {
			tags = t.remove(e, true, tags)
		}
	}
	return tags
}

// Tick removes what has expired, as far as it looks: an eighth of the table a call. It appends what
// changed to tags. To be called about once a second.
func (t *Table) Tick(now int64, tags []tag.Tag) []tag.Tag {
	t.mu.Lock()
	from := t.cursor
	t.cursor = (t.cursor + tickShards) % shards
	t.mu.Unlock()
	cfg := t.cfg.Load()
	for i := from; i < from+tickShards; i++ {
		expired := func(e *entry) bool {
			return e.state.Load() < oneRef && now >= e.used.Load()+int64(cfg.timeout(e))
		}
		for _, e := range t.shards[i].filter(expired) {
			tags = t.remove(e, false, tags)
		}
	}
	return tags
}

// Idle calls fn for each connection that no flow holds. Those that come or go meanwhile may be missed.
func (t *Table) Idle(fn func(*Conn, State)) {
	for i := range t.shards {
		for _, e := range t.shards[i].filter(func(e *entry) bool { return e.state.Load() < oneRef }) {
			fn(&e.Conn, State(e.state.Load())&seen)
		}
	}
}

// Len is the number of connections.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// Refused counts the connections beyond an owner's bound.
func (t *Table) Refused() uint64 { return t.refused.Load() }
