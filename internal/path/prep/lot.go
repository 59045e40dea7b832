package prep

import (
	"slices"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Config are the bounds of a Lot. Zero values mean the defaults.
type Config struct {
	HeldPerFlow int           // duplicates of one packet; default 32
	HeldPerPort int           // duplicates of one ingress port; default 256
	ParkPerPort int           // parked packets of one ingress port; default 128
	ParkTime    time.Duration // until a parked packet is given up; default 5 s
}

func (c Config) withDefaults() Config {
	if c.HeldPerFlow <= 0 {
		c.HeldPerFlow = 32
	}
	if c.HeldPerPort <= 0 {
		c.HeldPerPort = 256
	}
	if c.ParkPerPort <= 0 {
		c.ParkPerPort = 128
	}
	if c.ParkTime <= 0 {
		c.ParkTime = 5 * time.Second
	}
	return c
}

// Woken is a packet that leaves the Lot; it belongs to the caller again. Dup: it is a duplicate
// of the nearest one before it that is none, and gets the same treatment.
type Woken struct {
	Miss *datapath.Miss
	Dup  bool
}

// Lot keeps the parked and held packets of one worker. Not safe for concurrent use. A miss that
// the Lot accepts belongs to it until it hands it out again. Times are
// nanoseconds of one monotonic clock.
type Lot struct {
	cfg   Config
	flows map[Key]*flow
	waits map[tag.Tag]list // by what they wait for
	ports map[uint32]*port
	all   list // each waits equally long, so this is the order of expiry too

	held int
	seq  uint64
	free []*flow
}

// flow is a parked packet with the duplicates that are held behind it.
type flow struct {
	key      Key
	miss     *datapath.Miss
	wait     tag.Tag
	deadline int64
	dups     []dup // oldest first
	links    [numLists]links
}

type dup struct {
	miss *datapath.Miss
	seq  uint64 // when it was held
}

// port is what one ingress port has in the Lot.
type port struct {
	flows  list
	parked int
	held   int
}

// NewLot makes an empty Lot.
func NewLot(cfg Config) *Lot {
	return &Lot{
		cfg: cfg.withDefaults(), flows: make(map[Key]*flow), waits: make(map[tag.Tag]list), ports: make(map[uint32]*port),
		all: list{which: byAge},
	}
}

// Reconfigure changes the bounds. What is beyond a lower one leaves in its own time: it was given one. Packets that are parked wait as
// long as the new ParkTime says, from when they were parked.
func (l *Lot) Reconfigure(cfg Config) {
	was := l.cfg.ParkTime
	l.cfg = cfg.withDefaults()
	for f := l.all.head; f != nil; f = f.links[byAge].next {
		f.deadline += int64(l.cfg.ParkTime - was)
	}
}

// Hold keeps m if the same packet is parked, and reports whether it did. When that exceeds
// a bound, the oldest duplicate of the flow, or of the port, is dropped: given
// back to the caller, to be counted as drop.HeldOverflow.
func (l *Lot) Hold(m *datapath.Miss) (held bool, dropped *datapath.Miss) {
	if len(l.flows) == 0 {
		return false, nil
	}
	f := l.flows[DupKey(m)]
	if f == nil {
		return false, nil
	}
	p := l.ports[m.Key.InPort]
	switch {
	case len(f.dups) >= l.cfg.HeldPerFlow:
		dropped = l.dropOldest(p, f)
	case p.held >= l.cfg.HeldPerPort:
		dropped = l.dropOldest(p, p.oldestHeld())
	}
	l.seq++
	f.dups = append(f.dups, dup{m, l.seq})
	p.held++
	l.held++
	return true, dropped
}

func (l *Lot) dropOldest(p *port, f *flow) *datapath.Miss {
	m := f.dups[0].miss
	f.dups = slices.Delete(f.dups, 0, 1)
	p.held--
	l.held--
	return m
}

// oldestHeld finds the flow with the port's oldest duplicate. Only a port at its bound
// pays for the search, which is as long as its parked packets are many.
func (p *port) oldestHeld() (oldest *flow) {
	for f := p.flows.head; f != nil; f = f.links[byPort].next {
		if len(f.dups) > 0 && (oldest == nil || f.dups[0].seq < oldest.dups[0].seq) {
			oldest = f
		}
	}
	return oldest
}

// Park keeps m until Wake is called for wait, or until ParkTime after now, which must not
// go back. It refuses, and m remains the caller's, when the port has too many parked
// (drop.ParkOverflow). A packet that is the same as a parked one must be
// given to Hold, not to Park.
func (l *Lot) Park(m *datapath.Miss, wait tag.Tag, now int64) bool {
	p := l.ports[m.Key.InPort]
	if p == nil {
		p = &port{flows: list{which: byPort}}
		l.ports[m.Key.InPort] = p
	}
	key := DupKey(m)
	if p.parked >= l.cfg.ParkPerPort || l.flows[key] != nil {
		return false
	}
	f := l.alloc()
	f.key, f.miss, f.wait, f.deadline = key, m, wait, now+int64(l.cfg.ParkTime)
	l.flows[key] = f
	l.all.push(f)
	p.flows.push(f)
	p.parked++
	waiting, ok := l.waits[wait]
	if !ok {
		waiting.which = byWait
	}
	waiting.push(f)
	l.waits[wait] = waiting
	return true
}

// Wake hands out what waits for t, in the order in which it was parked, each packet followed by
// its duplicates: appended to out, which is returned.
func (l *Lot) Wake(t tag.Tag, out []Woken) []Woken {
	if len(l.flows) == 0 {
		return out
	}
	for f := l.waits[t].head; f != nil; {
		next := f.links[byWait].next
		out = l.release(f, out)
		f = next
	}
	return out
}

// Expire hands out, like Wake, what has waited for ParkTime: to be counted as
// drop.ParkTimeout.
func (l *Lot) Expire(now int64, out []Woken) []Woken {
	for f := l.all.head; f != nil && f.deadline <= now; f = l.all.head {
		out = l.release(f, out)
	}
	return out
}

// DropPort hands out, like Wake, all that came in on a port, which has been deleted.
func (l *Lot) DropPort(no uint32, out []Woken) []Woken {
	for p := l.ports[no]; p != nil && p.flows.head != nil; {
		out = l.release(p.flows.head, out)
	}
	return out
}

// Deadline is when the next parked packet expires; ok is false when there is none.
func (l *Lot) Deadline() (at int64, ok bool) {
	if l.all.head == nil {
		return 0, false
	}
	return l.all.head.deadline, true
}

// Parked is how many packets are parked.
func (l *Lot) Parked() int { return len(l.flows) }

// Held is how many duplicates are held.
func (l *Lot) Held() int { return l.held }

// release takes f out of everything and appends its packets to out.
func (l *Lot) release(f *flow, out []Woken) []Woken {
	out = append(out, Woken{Miss: f.miss})
	for _, d := range f.dups {
		out = append(out, Woken{d.miss, true})
	}
	no := f.key.Flow.InPort
	p := l.ports[no]
	p.flows.remove(f)
	p.parked--
	p.held -= len(f.dups)
	l.held -= len(f.dups)
	if p.parked == 0 {
		delete(l.ports, no)
	}
	waiting := l.waits[f.wait]
	waiting.remove(f)
	if waiting.head == nil {
		delete(l.waits, f.wait)
	} else {
		l.waits[f.wait] = waiting
	}
	l.all.remove(f)
	delete(l.flows, f.key)

	clear(f.dups)
	*f = flow{dups: f.dups[:0]}
	l.free = append(l.free, f)
	return out
}

func (l *Lot) alloc() *flow {
	n := len(l.free)
	if n == 0 {
		return new(flow)
	}
	f := l.free[n-1]
	l.free = l.free[:n-1]
	return f
}
