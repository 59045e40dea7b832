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
	"slices"
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
	OnBusy func(*Entry)

	// Keep, when set, says of which tags an entry with this key holds on to the thing itself; the entry remembers
	// them, OnAdd is called with it, and OnRemove once when it goes. Neither may call methods of the table.
	Keep            func(masked *match.Key, t tag.Tag) bool
	OnAdd, OnRemove func(kept []tag.Tag)

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
// entries included, are for the goroutine that owns it.
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

	entries  slab[Entry]
	entryIdx index
	tags     tagIndex

	ports    map[uint32]*port
	portList []*port
	portFree []*port

	flowWheel, entryWheel wheel

	ofEntry, ofQueue, ofPort lister

	keep     []tag.Tag // scratch
	putBatch []datapath.Flow
	putRefs  []ref
	delBatch []match.Key
	stats    Stats
}

// New makes an empty table. It takes memory for its indexes at once (64 to 128 bytes for
// each of MaxFlows), the rest as it fills.
func New(cfg Config, inst Installer, clk clock.Clock) *Table {
	cfg = cfg.withDefaults()
	t := &Table{
		cfg: cfg, inst: inst, clock: clk, seed: maphash.MakeSeed(),
		exactIdx: newIndex(cfg.MaxFlows),
		entryIdx: newIndex(cfg.MaxFlows),
		// An index that grows stops the worker for as long as it takes to copy: room for a few tags of its own per entry.
		tags:     tagIndex{idx: newIndex(4 * cfg.MaxFlows), setIdx: newIndex(cfg.MaxFlows)},
		ports:    make(map[uint32]*port),
		putBatch: make([]datapath.Flow, 0, batch),
		putRefs:  make([]ref, 0, batch),
		delBatch: make([]match.Key, 0, batch),
	}
	t.ofEntry = func(r ref) *links { return &t.exacts.at(r).nbrs }
	t.ofQueue = func(r ref) *links { return &t.exacts.at(r).queue }
	t.ofPort = func(r ref) *links { return &t.entries.at(r).nbrs }
	t.tags.of = func(r ref) *links { return &t.entries.at(r).peers }
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
		if e := t.entries.at(r); e.mask == m && e.key == *k {
			return r
		}
	}
	return 0
}

// maskedHash tells entries of different masks but equal masked keys apart.
func (t *Table) maskedHash(k *match.Key, m match.Mask) uint32 {
	return t.hash(k) ^ uint32(m)*0x9e3779b1
}

// Exact answers from the copy of the datapath's table: the flow is installed or
// about to be, so that a packet of it that missed needs only to be executed.
// A flow that misses although it was installed a while ago (Config.Lost) has got
// lost in the datapath and is queued to be put again.
func (t *Table) Exact(k *match.Key) (*Entry, bool) {
	r := t.findExact(k, t.hash(k))
	if r == 0 || t.exacts.at(r).state == dying {
		t.stats.ExactMisses++
		return nil, false
	}
	t.stats.ExactHits++
	f, now := t.exacts.at(r), t.clock.Now()
	e := t.entries.at(f.entry)
	f.used, e.used = now, now
	if f.state == installed && now-f.put > int64(t.cfg.Lost) {
		t.stats.Repaired++
		t.requeue(r)
	}
	return e, true
}

// Wildcard looks k up under each of its port's masks. On a hit the caller
// installs the exact flow with Install.
func (t *Table) Wildcard(k *match.Key) (*Entry, bool) {
	p := t.ports[k.InPort]
	if p == nil {
		t.stats.WildcardMisses++
		return nil, false
	}
	for i := range p.masks {
		m := p.masks[i].mask
		mk := m.Apply(k)
		r := t.findEntry(&mk, m, t.maskedHash(&mk, m))
		if r == 0 {
			continue
		}
		if i > 0 { // one step towards the front: what is hit most ends up first
			p.masks[i-1], p.masks[i] = p.masks[i], p.masks[i-1]
		}
		e := t.entries.at(r)
		e.hits++
		e.used = t.clock.Now()
		t.stats.WildcardHits++
		return e, true
	}
	t.stats.WildcardMisses++
	return nil, false
}

// Peek finds the entry that would answer for k, without counting it as a packet.
func (t *Table) Peek(k *match.Key) (*Entry, bool) {
	if r := t.findExact(k, t.hash(k)); r != 0 && t.exacts.at(r).state != dying {
		return t.entries.at(t.exacts.at(r).entry), true
	}
	p := t.ports[k.InPort]
	if p == nil {
		return nil, false
	}
	for i := range p.masks {
		m := p.masks[i].mask
		mk := m.Apply(k)
		if r := t.findEntry(&mk, m, t.maskedHash(&mk, m)); r != 0 {
			return t.entries.at(r), true
		}
	}
	return nil, false
}

// Add remembers what was decided for k: every packet that agrees with it in the
// fields of mask gets the actions as, until one of tags is invalidated. The flow for
// k itself is queued. An entry for the same masked key is replaced, its flows go. A
// port that already has MaxMasks masks gets an entry for k alone. Add
// copies its arguments and makes room at the cost of the port that has the most.
func (t *Table) Add(k *match.Key, mask match.Mask, as action.Physical, tags []tag.Tag, kind Kind) *Entry {
	e := t.addEntry(k, mask, as, tags, kind)
	t.attach(k, e)
	return e
}

func (t *Table) addEntry(k *match.Key, mask match.Mask, as action.Physical, tags []tag.Tag, kind Kind) *Entry {
	t.replace(k, mask)
	if t.entryIdx.n >= t.cfg.MaxFlows {
		t.evictEntry(k.InPort)
	}
	p := t.portOf(k.InPort)
	got := p.hold(mask|match.InPort, t.cfg.MaxMasks)
	if got != mask|match.InPort {
		t.stats.MaskOverflow++
		if old := t.findEntry(k, match.All, t.maskedHash(k, match.All)); old != 0 {
			t.remove(t.entries.at(old))
		}
	}
	now := t.clock.Now()
	r := t.entries.get()
	e := t.entries.at(r)
	*e = Entry{
		key: got.Apply(k), mask: got, kind: kind, self: r, port: p,
		inline: e.inline, spill: e.spill, kept: e.kept[:0], created: now, used: now, refreshed: now,
	}
	e.hash = t.maskedHash(&e.key, got)
	e.setActions(as)
	t.entryIdx.insert(e.hash, r)
	t.keep = t.keep[:0]
	e.set, e.tags = t.tags.tie(r, tags)
	for i := range tags {
		if t.cfg.Keep != nil && t.cfg.Keep(&e.key, tags[i]) && !slices.Contains(t.keep, tags[i]) {
			t.keep = append(t.keep, tags[i])
		}
	}
	if e.kept = append(e.kept, t.keep...); len(e.kept) > 0 { // at once, so that its memory grows once
		t.cfg.OnAdd(e.kept)
	}
	p.entries++
	t.ofPort.push(&p.idle[kind], r)
	t.entryWheel.add(r, t.entryDeadline(e, now))
	t.stats.Added++
	return e
}

// replace removes the entry that an Add for k under mask takes the place of.
func (t *Table) replace(k *match.Key, mask match.Mask) {
	mask |= match.InPort
	mk := mask.Apply(k)
	if r := t.findEntry(&mk, mask, t.maskedHash(&mk, mask)); r != 0 {
		t.remove(t.entries.at(r))
	}
}

// remove takes an entry out, and its exact flows with it.
func (t *Table) remove(e *Entry) {
	for e.flows.head != 0 {
		t.dropFlow(e.flows.head)
	}
	t.tags.untie(e.self, e.set, e.tags)
	if len(e.kept) > 0 {
		t.cfg.OnRemove(e.kept)
	}
	if e.note != 0 {
		t.counted(e, 0, 0)
		t.cfg.Forgotten(e.note)
	}
	t.entryIdx.remove(e.hash, e.self)
	t.entryWheel.remove(e.self)
	p := e.port
	t.ofPort.remove(&p.idle[e.kind], e.self)
	p.release(e.mask)
	if p.entries--; p.entries == 0 {
		t.leave(p)
	}
	e.port = nil
	t.entries.put(e.self)
}

// Invalidate removes the entries that carry a tag of this hash, and deletes
// their flows. It returns how many entries there were. Time grows with what is
// removed and nothing else.
func (t *Table) Invalidate(hash uint64) (n int) {
	for r := t.tags.entry(hash); r != 0; r = t.tags.entry(hash) {
		t.remove(t.entries.at(r))
		n++
	}
	t.stats.Invalidated += uint64(n)
	return n
}

// InvalidatePort removes what entered through a datapath port and what leaves
// through it (by its tag.DPPort). It returns how many entries there were.
func (t *Table) InvalidatePort(no uint32) (n int) {
	if p := t.ports[no]; p != nil {
		for p.entries > 0 {
			t.remove(t.entries.at(p.first()))
			n++
		}
	}
	t.stats.Invalidated += uint64(n)
	dp := tag.Tag{Kind: tag.DPPort, N: no}
	return n + t.Invalidate(dp.Hash())
}
