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

// Most action lists are no longer than this (set MACs, decrement TTL, output).
const inlineActions = 4

// Entry is a wildcard entry: what was decided for all packets that agree on
// the masked fields. It belongs to its Table, is read only, and is valid until the
// next call that may remove it (any but Exact, Wildcard, Used and Audit).
type Entry struct {
	key     match.Key // masked
	mask    match.Mask
	kind    Kind
	user    bool // the datapath cannot hold the actions
	hash    uint32
	self    ref
	port    *port
	actions action.Physical // in inline, or in a slice that is kept for the next owner
	inline  [inlineActions]action.Action
	spill   action.Physical
	kept    []tag.Tag // Config.Keep; the slice is kept for the next owner too

	flows  list // exact flows
	nflows int
	set    ref // tagSet
	tags   ref // first tagRef of its own
	note   uint32
	nbrs   links // among the entries of its port and kind
	peers  links // among those of its set
	timer  timer

	created   int64
	used      int64 // last packet known of
	emptied   int64 // when its last exact flow went
	refreshed int64 // last time Config.OnBusy was called

	hits           uint64
	reported       uint64 // of hits, by Config.Counted
	packets, bytes uint64
}

// Key is the masked key.
func (e *Entry) Key() match.Key { return e.key }

// Mask is the set of fields that count.
func (e *Entry) Mask() match.Mask { return e.mask }

// Kind is the entry's class.
func (e *Entry) Kind() Kind { return e.kind }

// Port is the datapath port of ingress.
func (e *Entry) Port() uint32 { return e.port.no }

// Actions is what is done to a packet; empty: drop. Not to be modified or kept.
func (e *Entry) Actions() action.Physical { return e.actions }

// UserSpace reports that the datapath cannot hold the actions in a flow: packets
// are executed one by one.
func (e *Entry) UserSpace() bool { return e.user }

// Flows is the number of exact flows, installed or about to be.
func (e *Entry) Flows() int { return e.nflows }

// Hits is how many packets Wildcard answered with this entry.
func (e *Entry) Hits() uint64 { return e.hits }

// Kept is what the entry holds on to (Config.Keep). Not to be modified or kept.
func (e *Entry) Kept() []tag.Tag { return e.kept }

// Counters is what the datapath reported of the entry's exact flows, past ones included.
func (e *Entry) Counters() (packets, bytes uint64) { return e.packets, e.bytes }

// SetNote has Config.Counted told n, which is not 0, of the entry's packets. Call it once, before the next call that may
// remove the entry.
func (e *Entry) SetNote(n uint32) { e.note = n }

// Note is what SetNote was given; 0: nothing.
func (e *Entry) Note() uint32 { return e.note }

// Used is when the last packet is known to have matched, in the table's clock.
func (e *Entry) Used() int64 { return e.used }

func (e *Entry) setActions(as action.Physical) {
	if len(as) <= inlineActions {
		e.actions = e.inline[:copy(e.inline[:], as)]
		return
	}
	e.spill = append(e.spill[:0], as...)
	e.actions = e.spill
}

// state of an exact flow.
type state uint8

const (
	queued    state = iota // to be installed by the next Flush
	installed              // the datapath said that it has it
	dying                  // to be deleted by the next Flush; no longer found
)

// exact is a flow of the datapath table. No pointers: see slab.
type exact struct {
	key     match.Key
	hash    uint32
	entry   ref // 0 when dying
	state   state
	present bool  // the datapath may hold something under the key
	nbrs    links // among the flows of the entry
	queue   links // to be put or to be deleted
	timer   timer

	used           int64 // last packet known of
	put            int64 // when it was last installed
	packets, bytes uint64
}
