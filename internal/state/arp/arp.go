// Package arp is what is known about neighbours, IPv4 (ARP) and IPv6 (ND): those on the links
// of router ports, which are asked for, and those that bridges have heard announced.
//
// An entry is confirmed by every answer. Stale after Config.Stale it still serves, and is asked for
// again while a flow uses it; Config.Expire after the last answer it is gone. One that is not
// known is asked for every Config.Retry until Config.GiveUp; then it is known as failed for
// Config.Failed, so that senders are told, and forgotten.
package arp

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state/table"
)

// Config of a Table.
type Config struct {
	MaxPerPort int           // neighbours that one port may have taught
	MaxPending int           // addresses that one port may be waiting for
	Retry      time.Duration // between requests; each time between 0.75 and 1.25 of it
	GiveUp     time.Duration // after the first request
	Failed     time.Duration // for which an unanswered address is known as failed
	Stale      time.Duration // since the last answer
	Expire     time.Duration // since the last answer
}

// DefaultConfig is 1024 and 256 a port; 10 s, 60 s; 10 s; 60 s, 90 s.
func DefaultConfig() Config {
	return Config{
		MaxPerPort: 1024,
		MaxPending: 256,
		Retry:      10 * time.Second,
		GiveUp:     60 * time.Second,
		Failed:     10 * time.Second,
		Stale:      60 * time.Second,
		Expire:     90 * time.Second,
	}
}

// Key is an address on the link of a router port, or in a VLAN of a bridge.
type Key struct {
	ID   uuid.UUID
	Addr match.Addr
	VLAN uint16
}

func (k Key) tag() tag.Tag {
	return tag.Tag{Kind: tag.Neighbour, ID: k.ID, Addr: k.Addr, VLAN: k.VLAN}
}

func keyOf(t tag.Tag) Key { return Key{t.ID, t.Addr, t.VLAN} }

type known struct {
	mac       match.MAC
	confirmed int64
}

// asking is an address with a request out. A refresh is of an entry that is still known.
type asking struct {
	next, until int64
	owner       uuid.UUID // on whose behalf
}

// Table holds the neighbours of all router ports and bridges. Safe for concurrent use. Times
// are a clock's, in ns.
type Table struct {
	Jitter func(k Key, now int64) float64 // a number in [0, 1) that spreads retries, random by default; to be set before use

	known  *table.Table[Key, known]
	failed *table.Table[Key, struct{}]

	mu      sync.Mutex
	cfg     Config
	asking  map[Key]asking
	waiting map[uuid.UUID]int // by owner: how many of asking
	refused uint64
}

// New makes an empty table.
func New(cfg Config) *Table {
	return &Table{
		Jitter:  func(Key, int64) float64 { return rand.Float64() },
		cfg:     cfg,
		known:   table.New[Key, known](cfg.MaxPerPort),
		failed:  table.New[Key, struct{}](0), // each was asked for, which is bounded
		asking:  map[Key]asking{},
		waiting: map[uuid.UUID]int{},
	}
}

// Reconfigure changes bounds and times. Addresses that are being asked for are given up when they would have been.
func (t *Table) Reconfigure(cfg Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cfg = cfg
	t.known.SetMax(cfg.MaxPerPort)
}

// Lookup finds the MAC of an address; failed: it was asked for and does not answer. It takes no lock
// and does not allocate.
func (t *Table) Lookup(k Key) (mac match.MAC, ok, failed bool) {
	if e, ok := t.known.Get(k); ok {
		return e.mac, true, false
	}
	_, failed = t.failed.Get(k)
	return mac, false, failed
}

// Learn registers an answer or announcement and reports whether it is news: a new
// address, or a new MAC. Then flows with the tag are out of date, and packets that wait for it
// can go on. It counts against owner, the port that teaches it, whose bound may refuse new addresses: not ok; the half of it
// is kept for those that were asked for, so that announcements cannot crowd them out.
func (t *Table) Learn(k Key, mac match.MAC, owner uuid.UUID, now int64) (changed tag.Tag, news, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, asked := t.asking[k]; !asked && t.crowded(k, owner) {
		t.refused++
		return k.tag(), false, false
	}
	old, had, ok := t.known.Put(k, known{mac, now}, owner, now)
	if !ok {
		return k.tag(), false, false
	}
	t.answered(k)
	t.failed.Delete(k)
	return k.tag(), !had || old.mac != mac, true
}

// crowded reports that k would be a new entry beyond the half of its owner's bound.
func (t *Table) crowded(k Key, owner uuid.UUID) bool {
	_, had := t.known.Get(k)
	return !had && t.known.Owned(owner) >= (t.cfg.MaxPerPort+1)/2
}

// Resolve makes sure that addr is being asked for on behalf of owner, the port whose packet waits, and reports whether the caller
// has to send a request now: once for all callers, the later requests come from Tick. Not ok: owner waits for as many
// addresses as it may.
func (t *Table) Resolve(port uuid.UUID, addr match.Addr, owner uuid.UUID, now int64) (send, ok bool) {
	k := Key{ID: port, Addr: addr}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.known.Get(k); ok {
		return false, true
	}
	if _, failed := t.failed.Get(k); failed {
		return false, true
	}
	return t.ask(k, owner, t.cfg.MaxPending, now)
}

// Asked are the router ports on whose links addresses are being asked for.
func (t *Table) Asked() map[uuid.UUID]struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	ports := make(map[uuid.UUID]struct{}, len(t.asking))
	for k := range t.asking {
		ports[k.ID] = struct{}{}
	}
	return ports
}

// StopAsking ends the asking for an address, or that it is known as failed: who needs it asks anew. False: nobody asked.
func (t *Table) StopAsking(k Key) (changed tag.Tag, was bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, was = t.asking[k]
	t.answered(k)
	t.failed.Delete(k)
	return k.tag(), was
}

// ask, answered: with mu held.
func (t *Table) ask(k Key, owner uuid.UUID, limit int, now int64) (send, ok bool) {
	if _, asked := t.asking[k]; asked {
		return false, true
	}
	if t.waiting[owner] >= limit {
		t.refused++
		return false, false
	}
	t.waiting[owner]++
	t.asking[k] = asking{now + t.retry(k, now), now + int64(t.cfg.GiveUp), owner}
	return true, true
}

func (t *Table) answered(k Key) {
	a, asked := t.asking[k]
	if !asked {
		return
	}
	delete(t.asking, k)
	if t.waiting[a.owner]--; t.waiting[a.owner] == 0 {
		delete(t.waiting, a.owner)
	}
}

// retry, with mu held, keeps requests of many addresses and hosts from marching in step.
func (t *Table) retry(k Key, now int64) int64 {
	return int64(float64(t.cfg.Retry) * (0.75 + t.Jitter(k, now)/2))
}

// Tick appends to ask the requests to be sent now, and to tags what changed: addresses
// that expired, failed, or may be tried again. To be called about once a second.
func (t *Table) Tick(now int64, ask []Key, tags []tag.Tag) ([]Key, []tag.Tag) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed.Expire(now-int64(t.cfg.Failed), func(k Key, _ struct{}) { tags = append(tags, k.tag()) })
	t.known.Range(func(k Key, e known) bool {
		switch age := now - e.confirmed; {
		case age >= int64(t.cfg.Expire):
			t.known.Delete(k)
			t.answered(k)
			tags = append(tags, k.tag())
		case age >= int64(t.cfg.Stale) && t.known.Held(k):
			// On behalf of the link: as many as are known.
			if send, _ := t.ask(k, k.ID, math.MaxInt, now); send {
				ask = append(ask, k)
			}
		}
		return true
	})
	for k, a := range t.asking {
		switch {
		case now >= a.until:
			t.answered(k)
			t.failed.Put(k, struct{}{}, k.ID, now)
			tags = append(tags, k.tag())
		case now >= a.next:
			a.next = now + t.retry(k, now)
			t.asking[k] = a
			ask = append(ask, k)
		}
	}
	return ask, tags
}

// Ref marks the entry that tg names as used by a flow, so that it is refreshed; Unref gives it
// back. Absent entries are ignored.
func (t *Table) Ref(tg tag.Tag) { t.known.Ref(keyOf(tg)) }

// Unref is the counterpart of Ref.
func (t *Table) Unref(tg tag.Tag, now int64) { t.known.Unref(keyOf(tg), now) }

// Drop removes the entry that tg names.
func (t *Table) Drop(tg tag.Tag) {
	k := keyOf(tg)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known.Delete(k)
	t.failed.Delete(k)
}

// Forget removes all that is known on a port or bridge, or was taught by a port, and appends what changed to tags.
func (t *Table) Forget(id uuid.UUID, tags []tag.Tag) []tag.Tag {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known.DeleteOwner(id, func(k Key, _ known) { tags = append(tags, k.tag()) })
	t.known.Range(func(k Key, _ known) bool {
		if k.ID == id {
			t.known.Delete(k)
			tags = append(tags, k.tag())
		}
		return true
	})
	t.failed.DeleteOwner(id, func(k Key, _ struct{}) { tags = append(tags, k.tag()) })
	for k, a := range t.asking {
		if k.ID == id || a.owner == id {
			t.answered(k)
		}
	}
	return tags
}

// Len is the number of known neighbours.
func (t *Table) Len() int { return t.known.Len() }

// Refused counts neighbours that were not learnt, and requests that were not sent, because a
// port had reached its bound.
func (t *Table) Refused() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refused + t.known.Refused() + t.failed.Refused()
}
