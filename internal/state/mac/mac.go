// Package mac is what bridges have learnt: behind which port a MAC is.
package mac

import (
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state/table"
)

// Config of a Table.
type Config struct {
	MaxPerPort int           // entries that one port may have; a port beyond it teaches nothing new
	Expire     time.Duration // after the last flow that uses the entry is gone
}

// DefaultConfig is 1024 entries a port, kept for 15 s.
func DefaultConfig() Config { return Config{MaxPerPort: 1024, Expire: 15 * time.Second} }

type key struct {
	bridge uuid.UUID
	vlan   uint16
	mac    match.MAC
}

func (k key) tag() tag.Tag {
	return tag.Tag{Kind: tag.MACEntry, ID: k.bridge, VLAN: k.vlan, MAC: k.mac}
}

// Table holds the MACs of all bridges. Safe for concurrent use. Times are a clock's, in ns.
type Table struct {
	expire atomic.Int64 // ns
	t      *table.Table[key, uuid.UUID]
}

// New makes an empty table.
func New(cfg Config) *Table {
	t := &Table{t: table.New[key, uuid.UUID](cfg.MaxPerPort)}
	t.expire.Store(int64(cfg.Expire))
	return t
}

// Reconfigure changes bounds and times, for the entries that are there too.
func (t *Table) Reconfigure(cfg Config) {
	t.t.SetMax(cfg.MaxPerPort)
	t.expire.Store(int64(cfg.Expire))
}

// Lookup finds the port behind which a bridge has seen mac. It takes no lock and does not allocate.
func (t *Table) Lookup(bridge uuid.UUID, vlan uint16, mac match.MAC) (port uuid.UUID, ok bool) {
	return t.t.Get(key{bridge, vlan, mac})
}

// Learn registers mac at port and reports whether that is news: new, or moved from another
// port. Then the flows with the tag are out of date. Not ok: the port has as many as it may.
func (t *Table) Learn(bridge uuid.UUID, vlan uint16, mac match.MAC, port uuid.UUID, now int64) (changed tag.Tag, news, ok bool) {
	k := key{bridge, vlan, mac}
	old, had, ok := t.t.Put(k, port, port, now)
	return k.tag(), ok && (!had || old != port), ok
}

// Ref keeps the entry that tg names while a flow uses it; Unref gives it back. Tags of other kinds and
// absent entries are ignored.
func (t *Table) Ref(tg tag.Tag) { t.t.Ref(key{tg.ID, tg.VLAN, tg.MAC}) }

// Unref is the counterpart of Ref: the entry's time runs from the last one.
func (t *Table) Unref(tg tag.Tag, now int64) { t.t.Unref(key{tg.ID, tg.VLAN, tg.MAC}, now) }

// Drop removes the entry that tg names.
func (t *Table) Drop(tg tag.Tag) { t.t.Delete(key{tg.ID, tg.VLAN, tg.MAC}) }

// Forget removes all that is behind a port and appends what changed to tags.
func (t *Table) Forget(port uuid.UUID, tags []tag.Tag) []tag.Tag {
	t.t.DeleteOwner(port, func(k key, _ uuid.UUID) { tags = append(tags, k.tag()) })
	return tags
}

// Tick removes what has expired and appends what changed to tags. To be called about
// once a second.
func (t *Table) Tick(now int64, tags []tag.Tag) []tag.Tag {
	t.t.Expire(now-t.expire.Load(), func(k key, _ uuid.UUID) { tags = append(tags, k.tag()) })
	return tags
}

// Len is the number of entries; Refused counts what ports were not allowed to teach.
func (t *Table) Len() int { return t.t.Len() }

// Refused counts what ports beyond their bound were not allowed to teach.
func (t *Table) Refused() uint64 { return t.t.Refused() }
