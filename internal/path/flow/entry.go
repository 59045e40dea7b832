package flow

import (
	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// Kind is the class of an entry, in the order in which a port that must make
// room gives them up.
type Kind uint8

// Kinds.
const (
	Error    Kind = iota // an error drop: goes 5 s after it was decided
	Drop                 // decided by topology or policy
	Normal               // forwards, depends on topology alone
	Stateful             // depends on connection state or NAT
	Tunnel               // came from, or is shared by, a tunnel
	kinds
)

func (k Kind) String() string {
	return [...]string{"error", "drop", "normal", "stateful", "tunnel"}[k]
}

// Entry is a wildcard entry: what was decided for all packets that agree on
// the masked fields. It belongs to its Table, is read only, and is valid until the
// next call that may remove it (any but Exact, Peek, Used and Audit). Comparable.
type Entry struct {
	t *Table
	r ref
}

func (e Entry) at() *entry { return e.t.entries.at(e.r) }

// entry is what the table has of one. No pointers: see slab.
type entry struct {
	mask    match.Mask
	kind    Kind
	user    bool // the datapath cannot hold the actions
	dead    bool // out of the table, but for its flows
	slot    uint8
	_       [2]byte
	port    uint32 // id
	by      uint32 // datapath port whose packet expects those of this entry, none of which has come; 0: it is an ordinary one
	actions ref    // of Table.lists
	flows   list   // exact flows
	nflows  int32
	spare   ref    // holds the key while there are no flows
	tags    ref    // first tagRef of its own
	set     ref    // the other tags
	inSet   links  // among the entries of the set
	born    uint32 // epoch: see stale.go
	note    uint32
	kept    ref   // what it holds on to by itself
	nbrs    links // among the entries of its port and kind, or among the dead
	timer   links

	created   stamp
	used      stamp // last packet known of
	emptied   stamp // when its last exact flow went
	refreshed stamp // last time Config.OnBusy was called

	hits           uint64
	reported       uint64 // of hits, by Config.Counted
	packets, bytes uint64
}

// Key is the masked key.
func (e Entry) Key() match.Key { return e.t.keyOf(e.at()) }

// Mask is the set of fields that count.
func (e Entry) Mask() match.Mask { return e.at().mask }

// Kind is the entry's class.
func (e Entry) Kind() Kind { return e.at().kind }

// Port is the datapath port of ingress.
func (e Entry) Port() uint32 { return e.t.portAt(e.at().port).no }

// Actions is what is done to a packet; empty: drop. Not to be modified; valid until the actions of another entry are asked for.
func (e Entry) Actions() action.Physical { return e.t.lists.get(e.at().actions) }

// UserSpace reports that the datapath cannot hold the actions in a flow: packets
// are executed one by one.
func (e Entry) UserSpace() bool { return e.at().user }

// Flows is the number of exact flows, installed or about to be.
func (e Entry) Flows() int { return int(e.at().nflows) }

// Hits is how many packets Wildcard answered with this entry.
func (e Entry) Hits() uint64 { return e.at().hits }

// Kept is what the entry holds on to (Config.Hold). Not to be modified; valid until that of another entry is asked for.
func (e Entry) Kept() []tag.Tag { return e.t.keptTags(e.at()) }

// Counters is what the datapath reported of the entry's exact flows, past ones included.
func (e Entry) Counters() (packets, bytes uint64) { return e.at().packets, e.at().bytes }

// SetNote has Config.Counted told n, which is not 0, of the entry's packets. Call it once, before the next call that may
// remove the entry.
func (e Entry) SetNote(n uint32) { e.at().note = n }

// Expect says that no packet has asked for the entry: they are expected because of one that came in by another port. Config.Came is
// called once, with the first that is heard of.
func (e Entry) Expect(by uint32) {
	x := e.at()
	e.t.unexpect(x)
	x.by = by
	e.t.expected[by]++
}

// Note is what SetNote was given; 0: nothing.
func (e Entry) Note() uint32 { return e.at().note }

// Used is when the last packet is known to have matched, in the table's clock, to a hundredth of a second.
func (e Entry) Used() int64 { return e.at().used.time(e.t.clock.Now()) }

// state of an exact flow.
type state uint8

const (
	queued    state = iota // to be installed by the next Flush
	installed              // the datapath said that it has it
	dying                  // to be deleted by the next Flush; no longer found
	spare                  // no flow: holds the key of an entry that has none
)

// exact is a flow of the datapath table. No pointers: see slab.
type exact struct {
	key     match.Key
	entry   ref // 0 when dying
	state   state
	present bool  // the datapath may hold something under the key
	slot    uint8 // of the wheel
	nbrs    links // among the flows of the entry
	place   links // queued: in puts; installed: in the wheel; dying: in dels

	used           stamp // last packet known of
	put            stamp // when it was last installed
	packets, bytes uint64
}
