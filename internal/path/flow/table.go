// Package flow is stage 3 of a packet's path: what earlier packets have already
// decided. It holds a copy of the datapath's table of exact flows, and the
// wildcard entries (mask, masked key, actions, tags) of which those are instances.
//
// Changes to the datapath are queued and sent by Flush, deletes before puts. The copy
// says that a flow is installed only after the datapath said so; whatever the
// datapath might hold without the copy knowing is queued for deletion. Hence
// after a Flush that returned nil both hold the same.
//
// An invalidation wins over a simulation that it races: the worker takes its snapshot of the
// topology, adds what it decided and applies invalidations on one goroutine, and
// a change is published before its tags are sent.
package flow

import (
	"hash/maphash"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Installer is what a Table needs of a datapath.Datapath, with its contract.
type Installer interface {
	PutFlows(fs []datapath.Flow) (n int, err error)
	DelFlows(keys []match.Key) error
}

var _ Installer = datapath.Datapath(nil)

// Config bounds a Table. Zero values mean the defaults.
type Config struct {
	MaxFlows int           // exact flows, and as many wildcard entries; 100,000
	MaxMasks int           // different masks per ingress port, match.All not counted; 64
	Idle     time.Duration // without a packet until a flow goes; 60 s
	Error    time.Duration // until an Error entry goes, used or not; 5 s
	Stateful time.Duration // between calls of OnBusy; 30 s
	Lost     time.Duration // a flow that misses this long after its install is put again; 1 s

	// OnBusy, when set, is called by Expire for a Stateful entry that had packets
	// since it was last called, so that the state it depends on stays alive.
	// It must not call methods that may remove entries.
	OnBusy func(Entry)

	// Holds, when set, says whether an entry with this key holds on to the thing that a tag of its names; Hold then does so, if the
	// thing is there, and Release is called once with the handle that Hold has returned. Entries that share a tag may do so together, until
	// the last of them goes. None may call methods of the table.
	Holds   func(masked *match.Key, t *tag.Tag) bool
	Hold    func(t *tag.Tag) (handle uint64, ok bool)
	Release func(t *tag.Tag, handle uint64)

	// Ahead, when set, is called some time before Release, so that what it changes is brought into the cache meanwhile. It may be called
	// without a Release, and must not call methods of the table.
	Ahead func(t *tag.Tag, handle uint64)

	// Came, when set, is called when the first packet of an entry is heard of that was expected (Entry.Expect): it was looked up, or the
	// datapath has reported it. It must not call methods that may remove entries.
	Came func(Entry)

	// Counted is told, from time to time, of packets and bytes of entries with a note (Entry.SetNote) that it was not
	// told of before; Forgotten once, when such an entry goes. What the datapath has counted since its last
	// report is then lost. Neither may call methods of the table.
	Counted   func(note uint32, packets, bytes uint64)
	Forgotten func(note uint32)
}

func (c Config) withDefaults() Config {
	orInt := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	orTime := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	orInt(&c.MaxFlows, 100_000)
	orInt(&c.MaxMasks, 64)
	orTime(&c.Idle, 60*time.Second)
	orTime(&c.Error, 5*time.Second)
	orTime(&c.Stateful, 30*time.Second)
	orTime(&c.Lost, time.Second)
	return c
}

// Table belongs to one worker. It has no locks: all methods, those of its
// entries included, are for the goroutine that owns it, and holds it until they return: its memory
// is not the garbage collector's.
type Table struct {
	cfg   Config
	inst  Installer
	clock clock.Clock
	seed  maphash.Seed

	exacts   slab[exact]
	exactIdx index
	live     int  // exact flows that are not dying
	puts     list // exact flows to be installed
	dels     list // and to be deleted
	nputs    int
	ndels    int

	entries  slab[entry]
	entryIdx index
	lists    actionLists
	tags     tagIndex
	kept     slab[keptTag]
	stale    stale

	expected map[uint32]int // entries by the port that expects them

	ports    map[uint32]*port
	portTab  []*port // by id
	portList []*port // in use
	portFree []*port

	flowWheel, entryWheel wheel

	ofEntry, ofPlace, ofPort, ofSet lister

	key      match.Key // scratch, like all below
	keep     []tag.Tag
	putBatch []datapath.Flow
	putRefs  []ref
	putActs  action.Physical
	delBatch []match.Key
	stats    Stats
}

// New makes an empty table. It takes memory as it fills.
func New(cfg Config, inst Installer, clk clock.Clock) *Table {
	t := &Table{
		cfg: cfg.withDefaults(), inst: inst, clock: clk, seed: maphash.MakeSeed(),
		exactIdx: newIndex(), entryIdx: newIndex(),
		tags:     tagIndex{idx: newIndex(), setIdx: newIndex()},
		lists:    actionLists{idx: newIndex(), seed: maphash.MakeSeed()},
		stale:    stale{tagIdx: newIndex(), left: perTurn},
		expected: make(map[uint32]int),
		ports:    make(map[uint32]*port),
		putBatch: make([]datapath.Flow, 0, batch),
		putRefs:  make([]ref, 0, batch),
		delBatch: make([]match.Key, 0, batch),
	}
	t.ofEntry = func(r ref) *links { return &t.exacts.at(r).nbrs }
	t.ofPlace = func(r ref) *links { return &t.exacts.at(r).place }
	t.ofPort = func(r ref) *links { return &t.entries.at(r).nbrs }
	t.ofSet = func(r ref) *links { return &t.entries.at(r).inSet }
	t.stale.ofQueue = func(r ref) *links { return &t.stale.tags.at(r).queue }
	t.newWheels()
	return t
}

func (t *Table) hash(k *match.Key) uint32 { return uint32(maphash.Bytes(t.seed, k.Bytes()[:])) }

func (t *Table) findExact(k *match.Key, h uint32) ref {
	for p, r := t.exactIdx.first(h); r != 0; p, r = t.exactIdx.next(p, h) {
		if t.exacts.at(r).key == *k {
			return r
		}
	}
	return 0
}

func (t *Table) findEntry(k *match.Key, m match.Mask, h uint32) ref {
	for p, r := t.entryIdx.first(h); r != 0; p, r = t.entryIdx.next(p, h) {
		if e := t.entries.at(r); e.mask == m && t.keyOf(e) == *k {
			return r
		}
	}
	return 0
}

// keyOf is an entry's masked key. An entry keeps no key of its own: any of its flows has it.
func (t *Table) keyOf(e *entry) match.Key {
	r := e.spare
	if r == 0 {
		r = e.flows.head
	}
	return e.mask.Apply(&t.exacts.at(r).key)
}

// maskedHash tells entries of different masks but equal masked keys apart.
func (t *Table) maskedHash(k *match.Key, m match.Mask) uint32 {
	return t.hash(k) ^ uint32(m)*0x9e3779b1
}

// Exact answers from the copy of the datapath's table: the flow is installed or
// about to be, so that a packet of it that missed needs only to be executed.
// A flow that misses although it was installed a while ago (Config.Lost) has got
// lost in the datapath and is queued to be put again.
func (t *Table) Exact(k *match.Key) (Entry, bool) {
	r := t.findExact(k, t.hash(k))
	if r == 0 || !t.answers(r) {
		t.stats.ExactMisses++
		return Entry{}, false
	}
	t.stats.ExactHits++
	t.came(t.exacts.at(r).entry)
	f, now := t.exacts.at(r), t.clock.Now()
	f.used = stampOf(now)
	t.entries.at(f.entry).used = f.used
	if f.state == installed && now-f.put.time(now) > int64(t.cfg.Lost) {
		t.stats.Repaired++
		t.requeue(r)
	}
	return Entry{t, f.entry}, true
}

// answers reports whether a flow is there for a packet of its key.
func (t *Table) answers(r ref) bool {
	f := t.exacts.at(r)
	return f.state != dying && !t.invalid(t.entries.at(f.entry))
}

// Wildcard looks k up under each of its port's masks. On a hit the caller
// installs the exact flow with Install.
func (t *Table) Wildcard(k *match.Key) (Entry, bool) {
	r, i := t.findWild(k)
	for ; r != 0 && t.invalid(t.entries.at(r)); r, i = t.findWild(k) {
		t.invalidate(r)
	}
	if r == 0 {
		t.stats.WildcardMisses++
		return Entry{}, false
	}
	if i > 0 { // one step towards the front: what is hit most ends up first
		p := t.ports[k.InPort]
		p.masks[i-1], p.masks[i] = p.masks[i], p.masks[i-1]
	}
	e := t.entries.at(r)
	e.hits++
	e.used = stampOf(t.clock.Now())
	t.stats.WildcardHits++
	t.came(r)
	return Entry{t, r}, true
}

// findWild finds an entry for k, and which of its port's masks it is under.
func (t *Table) findWild(k *match.Key) (ref, int) {
	p := t.ports[k.InPort]
	if p == nil {
		return 0, 0
	}
	for i := range p.masks {
		m := p.masks[i].mask
		mk := m.Apply(k)
		if r := t.findEntry(&mk, m, t.maskedHash(&mk, m)); r != 0 {
			return r, i
		}
	}
	return 0, 0
}

// Peek finds the entry that would answer for k, without counting it as a packet.
func (t *Table) Peek(k *match.Key) (Entry, bool) {
	if r := t.findExact(k, t.hash(k)); r != 0 && t.answers(r) {
		return Entry{t, t.exacts.at(r).entry}, true
	}
	r, _ := t.findWild(k)
	return Entry{t, r}, r != 0 && !t.invalid(t.entries.at(r))
}

// Add remembers what was decided for k: every packet that agrees with it in the
// fields of mask gets the actions as, until one of tags is invalidated. The flow for
// k itself is queued. An entry for the same masked key is replaced, its flows go. A
// port that already has MaxMasks masks gets an entry for k alone. Add
// copies its arguments and makes room at the cost of the port that has the most.
func (t *Table) Add(k *match.Key, mask match.Mask, as action.Physical, tags []tag.Tag, kind Kind) Entry {
	r := t.addEntry(k, mask, as, tags, kind)
	t.attach(k, r)
	return Entry{t, r}
}

func (t *Table) addEntry(k *match.Key, mask match.Mask, as action.Physical, tags []tag.Tag, kind Kind) ref {
	t.replace(k, mask)
	if t.entryIdx.n >= t.cfg.MaxFlows {
		t.evictEntry(k.InPort)
	}
	p := t.portOf(k.InPort)
	got := p.hold(mask|match.InPort, t.cfg.MaxMasks)
	if got != mask|match.InPort {
		t.stats.MaskOverflow++
		if old := t.findEntry(k, match.All, t.maskedHash(k, match.All)); old != 0 {
			t.remove(old)
		}
	}
	now := t.clock.Now()
	r := t.entries.get()
	e := t.entries.at(r)
	at := stampOf(now)
	*e = entry{mask: got, kind: kind, port: p.id, actions: t.lists.add(as), born: t.stale.epoch, created: at, used: at, refreshed: at}
	e.spare = t.exacts.get() // for the key; attach makes a flow of it
	*t.exacts.at(e.spare) = exact{key: *k, state: spare}
	t.key = got.Apply(k)
	t.entryIdx.insert(t.maskedHash(&t.key, got), r)
	t.tag(r, tags)
	p.entries++
	t.ofPort.push(&p.idle[kind], r)
	t.entryWheel.add(r, t.entryDeadline(e, now))
	t.stats.Added++
	return r
}

// replace removes the entry that an Add for k under mask takes the place of.
func (t *Table) replace(k *match.Key, mask match.Mask) {
	mask |= match.InPort
	mk := mask.Apply(k)
	if r := t.findEntry(&mk, mask, t.maskedHash(&mk, mask)); r != 0 {
		t.remove(r)
	}
}

// remove takes an entry out, and its exact flows with it: when there are many of them, the last ones go with the next
// calls of Tend.
func (t *Table) remove(r ref) {
	e := t.entries.at(r)
	key := t.keyOf(e)
	t.entryIdx.remove(t.maskedHash(&key, e.mask), r)
	t.untag(r)
	t.unexpect(e)
	if e.note != 0 {
		t.counted(e, 0, 0)
		t.cfg.Forgotten(e.note)
		e.note = 0
	}
	t.entryWheel.remove(r)
	p := t.portAt(e.port)
	if e.nflows > 0 {
		t.ofPort.remove(&p.busy[e.kind], r)
	} else {
		t.ofPort.remove(&p.idle[e.kind], r)
	}
	p.release(e.mask)
	p.entries--
	if e.spare != 0 {
		t.exacts.put(e.spare)
		e.spare = 0
	}
	e.dead = true
	t.ofPort.push(&t.stale.dead, r)
	if e.nflows == 0 {
		t.bury(r)
		return
	}
	for range min(atOnce, e.nflows) {
		t.dropFlow(e.flows.head)
	}
}

// bury frees a dead entry that has no flows any more.
func (t *Table) bury(r ref) {
	e := t.entries.at(r)
	t.ofPort.remove(&t.stale.dead, r)
	t.lists.drop(e.actions)
	e.actions = 0
	t.leave(t.portAt(e.port))
	t.entries.put(r)
}
