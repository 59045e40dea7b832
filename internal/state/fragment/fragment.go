// Package fragment remembers what the first fragments of IP datagrams said that later ones do not: the ports. A later
// fragment is then treated as its first one was (RFC 6146 section 3.4, RFC 4787 REQ-14).
package fragment

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// Config of a Table.
type Config struct {
	MaxPerPort int           // datagrams remembered that entered by one port; the oldest makes room for a new one
	Time       time.Duration // for which one is remembered, from its first fragment
}

// DefaultConfig is 1,024 datagrams and 60 s, the reassembly time of RFC 1122 section 3.3.2 and RFC 8200 section 4.5.
func DefaultConfig() Config { return Config{MaxPerPort: 1024, Time: 60 * time.Second} }

// Key is a datagram that enters the virtual network by a port: what all its fragments have in common (RFC 791 section 3.2,
// RFC 8200 section 4.5). What another port sends is another datagram, whatever it claims.
type Key struct {
	Port     uuid.UUID
	Src, Dst match.Addr
	Proto    uint8
	ID       uint32 // identification: 16 bits in IPv4
}

// Tag names the datagram, for packets that wait for its first fragment.
func (k Key) Tag() tag.Tag {
	return tag.Tag{Kind: tag.Fragment, ID: k.Port, Addr: k.Src, Peer: k.Dst, Proto: k.Proto, N: k.ID}
}

// KeyOf is the Key that has the Tag.
func KeyOf(t tag.Tag) Key { return Key{Port: t.ID, Src: t.Addr, Dst: t.Peer, Proto: t.Proto, ID: t.N} }

// First is what a first fragment says; ports as in match.Key.
type First struct {
	SrcPort, DstPort uint16
	TCPFlags         uint8
}

// shards keep short what one lock holds; a port's datagrams are in one of them. There are locks because the fragments of
// one datagram may come to different workers: ICMP's first one is steered by its identifier.
const shards = 64

// Table is safe for concurrent use. Lookups do not allocate. Times are a clock's, in ns.
type Table struct {
	seed   maphash.Seed
	shards [shards]shard
}

type shard struct {
	mu    sync.Mutex
	cfg   Config
	ports map[uuid.UUID]*port
}

// port has the datagrams of one port in the order in which they were heard of. Its memory grows by a chunk at a time, and is used again: a map that
// has a key go for each that comes is made anew over and over, and a slice that grows is copied, while all packets wait.
type port struct {
	chunks     []*[chunkLen]entry
	made       int32   // entries that are or were in use
	n          int     // datagrams
	buckets    []int32 // first entry by hash; -1: none. Length: a power of two
	free       int32   // first of those to be used again, by next; -1: none
	head, tail int32   // oldest, newest; -1: none
}

const chunkLen = 32

type entry struct {
	key        Key
	first      First
	known      bool // false: later fragments came first, and wait
	hash       uint32
	since      int64
	prev, next int32 // in order of time
	more       int32 // of the same bucket
}

func newPort() *port {
	p := &port{free: -1, head: -1, tail: -1}
	p.rehash(chunkLen)
	return p
}

func (p *port) at(i int32) *entry { return &p.chunks[i/chunkLen][i%chunkLen] }

func (p *port) bucket(hash uint32) *int32 { return &p.buckets[hash&uint32(len(p.buckets)-1)] }

func (p *port) rehash(size int) {
	p.buckets = make([]int32, size)
	for i := range p.buckets {
		p.buckets[i] = -1
	}
	for i := p.head; i >= 0; i = p.at(i).next {
		e := p.at(i)
		b := p.bucket(e.hash)
		e.more, *b = *b, i
	}
}

// find returns -1 when there is none.
func (p *port) find(k Key, hash uint32) int32 {
	i := *p.bucket(hash)
	for i >= 0 && (p.at(i).hash != hash || p.at(i).key != k) {
		i = p.at(i).more
	}
	return i
}

// New makes an empty table.
func New(cfg Config) *Table {
	t := &Table{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].cfg, t.shards[i].ports = cfg, map[uuid.UUID]*port{}
	}
	return t
}

// Reconfigure changes the bounds. Datagrams beyond a lower one go as new ones come.
func (t *Table) Reconfigure(cfg Config) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.cfg = cfg
		s.mu.Unlock()
	}
}

func (t *Table) hash(k Key) uint32 { return uint32(maphash.Comparable(t.seed, k)) }

func (t *Table) shard(id uuid.UUID) *shard { return &t.shards[(id[0]^id[9]^id[15])%shards] }

// Lookup finds what the datagram's first fragment said; false while it has not come, and when it is forgotten.
func (t *Table) Lookup(k Key) (f First, ok bool) {
	s := t.shard(k.Port)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[k.Port]
	if p == nil {
		return f, false
	}
	i := p.find(k, t.hash(k))
	if i < 0 || !p.at(i).known {
		return f, false
	}
	return p.at(i).first, true
}

// Remember notes a first fragment. awaited: later ones came before it, and wait (Await). Another first fragment of the same
// datagram takes its place: identifications are used again.
func (t *Table) Remember(k Key, f First, now int64) (awaited bool) {
	s, h := t.shard(k.Port), t.hash(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, had := s.entry(k, h, now)
	awaited = had && !e.known
	e.first, e.known = f, true
	return awaited
}

// Await notes that a later fragment waits for its first one; true when that has come meanwhile.
func (t *Table) Await(k Key, now int64) (known bool) {
	s, h := t.shard(k.Port), t.hash(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.ports[k.Port]; p != nil {
		if i := p.find(k, h); i >= 0 {
			return p.at(i).known
		}
	}
	s.entry(k, h, now)
	return false
}

// entry finds or makes the entry of a datagram, as the newest.
func (s *shard) entry(k Key, hash uint32, now int64) (e *entry, had bool) {
	p := s.ports[k.Port]
	if p == nil {
		p = newPort()
		s.ports[k.Port] = p
	}
	i := p.find(k, hash)
	if had = i >= 0; had {
		p.unlink(i)
	} else {
		for s.cfg.MaxPerPort > 0 && p.n >= s.cfg.MaxPerPort {
			p.remove(p.head)
		}
		i = p.add(k, hash)
	}
	e = p.at(i)
	e.since, e.prev, e.next = now, p.tail, -1
	if p.tail >= 0 {
		p.at(p.tail).next = i
	} else {
		p.head = i
	}
	p.tail = i
	return e, had
}

// add makes an entry that is not in the order of time yet.
func (p *port) add(k Key, hash uint32) int32 {
	if p.n == len(p.buckets) {
		p.rehash(2 * p.n)
	}
	i := p.free
	if i >= 0 {
		p.free = p.at(i).next
	} else {
		if i = p.made; i%chunkLen == 0 {
			p.chunks = append(p.chunks, new([chunkLen]entry))
		}
		p.made++
	}
	b := p.bucket(hash)
	*p.at(i) = entry{key: k, hash: hash, more: *b}
	*b = i
	p.n++
	return i
}

// unlink takes an entry out of the order of time.
func (p *port) unlink(i int32) {
	e := p.at(i)
	if e.prev >= 0 {
		p.at(e.prev).next = e.next
	} else {
		p.head = e.next
	}
	if e.next >= 0 {
		p.at(e.next).prev = e.prev
	} else {
		p.tail = e.prev
	}
}

func (p *port) remove(i int32) {
	p.unlink(i)
	e := p.at(i)
	b := p.bucket(e.hash)
	for *b != i {
		b = &p.at(*b).more
	}
	*b = e.more
	e.next, p.free = p.free, i
	p.n--
}

// Tick forgets what is too old. To be called about once a second.
func (t *Table) Tick(now int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for id, p := range s.ports {
			for p.head >= 0 && now-p.at(p.head).since >= int64(s.cfg.Time) {
				p.remove(p.head)
			}
			if p.head < 0 {
				delete(s.ports, id)
			}
		}
		s.mu.Unlock()
	}
}

// Forget removes the datagrams of a port that is gone.
func (t *Table) Forget(id uuid.UUID) {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ports, id)
}

// Len is the number of datagrams.
func (t *Table) Len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, p := range s.ports {
			n += p.n
		}
		s.mu.Unlock()
	}
	return n
}
