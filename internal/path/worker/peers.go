package worker

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

// What this host has learnt of connections is told to the hosts to which their packets go, before the packets themselves: the
// answer may enter there (package replicate).

const (
	unackedMax   = 4096                         // messages that wait to be acknowledged; the oldest gives way
	resendAfter  = int64(50 * time.Millisecond) // and twice as long each time
	resendAtMost = 5
)

// peers is what one worker tells other hosts.
type peers struct {
	fresh   []replicate.Conn // of the packet at hand: begun or answered
	members []replicate.Conn // of the packet at hand: the member that a client was given
	told    []match.Addr     // of the packet at hand

	exits []uuid.UUID          // scratch: by which the packet at hand leaves, of ports with siblings
	far   map[uint32]uuid.UUID // ports of other hosts that have siblings, by tunnel key

	// Ring of messages by sequence number. A slot's frame is also what is sent, so it must outlive the batch.
	ring          []message
	first, next   uint32 // unacknowledged are within
	due           int64  // when one of them is to be sent again, at the earliest
	retold, given uint64

	tales []*tale
	early early

	acks []ackList // to be sent with the batch at hand
}

type message struct {
	to    match.Addr
	frame []byte
	at    int64
	tries int // 0: acknowledged, or never used
	part  *tale
}

// ackList is what is to be acknowledged to one worker of a host.
type ackList struct {
	to              match.Addr
	worker, workers uint16
	frame           []byte
	n               int
}

// freshConnection notes that the packet at hand has begun a connection, or is an answer of one.
func (w *Worker) freshConnection(c conntrack.Conn, s conntrack.State, moved bool) {
	w.peers.fresh = append(w.peers.fresh, replicate.Conn{Conn: c, State: s, Moved: moved})
}

// freshMember notes that the packet at hand has given a client its member, which is the business of the hosts where it may come in.
func (w *Worker) freshMember(c conntrack.Conn, moved bool) {
	w.peers.members = append(w.peers.members, replicate.Conn{Conn: c, Moved: moved})
}

// tellPeers sends what is fresh to the hosts to which the packet with key k, which came in by port, is about to go, and to those where
// others of its connection may come in: the hosts of the siblings of both its ports.
func (w *Worker) tellPeers(k *match.Key, port uuid.UUID, as action.Physical) {
	p := &w.peers
	if len(p.fresh)+len(p.members) == 0 {
		return
	}
	p.told = p.told[:0]
	out := *k // as it leaves: the answer has the same sum
	for i := range as {
		switch a := &as[i]; a.Op {
		case action.SetSrc:
			out.Src = a.Addr
		case action.SetDst:
			out.Dst = a.Addr
		case action.SetSrcPort:
			out.SrcPort = a.Value
		case action.SetDstPort:
			out.DstPort = a.Value
		case action.Tunnel:
			if !slices.Contains(p.told, a.Addr) {
				p.told = append(p.told, a.Addr)
				w.tellConns(a.Port, a.Addr, p.fresh, out.ConnectionSum())
			}
		}
	}
	for _, id := range w.noteSiblings() {
		w.tellSiblings(id, p.fresh, out.ConnectionSum())
	}
	w.tellSiblings(port, p.fresh, k.ConnectionSum())
	p.told = p.told[:0]
	w.tellSiblings(port, p.members, k.ConnectionSum())
	p.fresh, p.members = p.fresh[:0], p.members[:0]
}

// tellConns sends connections to a host, in as many messages as it takes.
func (w *Worker) tellConns(port uint32, to match.Addr, cs []replicate.Conn, sum uint32) {
	for len(cs) > 0 {
		n := min(len(cs), replicate.MaxConns)
		m := w.begin(to, replicate.Conns, sum)
		for i := range cs[:n] {
			m.frame = replicate.AppendConn(m.frame, &cs[i])
		}
		replicate.SetCount(m.frame, n)
		w.sendMessage(port, m)
		cs = cs[n:]
	}
}

// begin takes the next slot of the ring for a message.
func (w *Worker) begin(to match.Addr, kind replicate.Kind, sum uint32) *message {
	p := &w.peers
	if p.ring == nil {
		p.ring = make([]message, unackedMax)
	}
	m := &p.ring[p.next%unackedMax]
	if p.next-p.first == unackedMax {
		if m.tries > 0 {
			p.given++
			m.part.lost()
		}
		p.first++
	}
	p.due = min(p.due, w.now+resendAfter)
	if p.first == p.next {
		p.due = w.now + resendAfter
	}
	h := w.header(kind)
	h.Seq = p.next
	p.next++
	m.to, m.at, m.tries, m.part = to, w.now, 1, nil
	m.frame = replicate.Begin(m.frame[:0], &h, sum)
	return m
}

func (w *Worker) header(kind replicate.Kind) replicate.Header {
	return replicate.Header{Kind: kind, Host: w.cfg.Host, Worker: uint16(w.cfg.ID), Workers: uint16(w.dp.Workers())}
}

func (w *Worker) sendMessage(port uint32, m *message) { w.sendToHost(port, m.to, m.frame) }

// sendToHost queues a frame for the batch at hand. It counts as a packet that was made here.
func (w *Worker) sendToHost(port uint32, to match.Addr, frame []byte) {
	w.counts.In++
	w.counts.Made++
	as := [1]action.Action{{Op: action.Tunnel, Port: port, Addr: to, Key: replicate.Key}}
	w.batch.send(datapath.Exec{Frame: frame, Actions: as[:]})
}

// urgent are messages: what they say must be known before the answers are judged that come behind them.
func urgent(m *datapath.Miss) bool { return m.Key.TunKey == replicate.Key }

// heard takes a message from another host. False: it is none.
func (w *Worker) heard(m *datapath.Miss) bool {
	if !urgent(m) {
		return false
	}
	h, body, err := replicate.Parse(m.Frame)
	from := match.Addr{}
	if host := w.snapshot.Hosts[h.Host]; host != nil {
		from = host.Tunnel
	}
	if err != nil || from == (match.Addr{}) {
		w.drop(drop.BadMessage)
		return true
	}
	switch h.Kind {
	case replicate.Conns:
		changed := w.changed[:0]
		for i := range int(h.Count) {
			if c, ok := replicate.ConnAt(body, i); ok {
				changed = w.merge(&c, h.Repeated, changed)
			}
		}
		w.peers.early.news = w.peers.early.news || len(changed) > 0
		w.publish(changed)
		w.acknowledge(&h, from)
	case replicate.Acks:
		for i := range int(h.Count) {
			w.acknowledged(replicate.AckAt(body, i))
		}
	case replicate.Hello:
		w.acknowledge(&h, from)
		if w.hello != nil {
			w.hello(from)
		}
	case replicate.Owns:
		for i := range int(h.Count) {
			if o := replicate.OwnedAt(body, i); w.owns != nil {
				w.owns(o.Port, h.Host, o.Revision)
			}
		}
	}
	w.consumed()
	return true
}

// merge takes over a connection that another host has. What is in its way goes when the other host says that it was moved; and when
// it is told again and its own answer is in its way: the first message was lost, and the answer was taken for a beginning.
func (w *Worker) merge(c *replicate.Conn, again bool, changed []tag.Tag) []tag.Tag {
	had := len(changed)
	changed, v := w.tables.MergeConnection(c.Conn, c.State, changed)
	if v != conntrack.Conflict {
		return changed
	}
	if !c.Moved {
		have, _, ok := w.tables.GetConnection(tag.Of(c.Kind, c.Device, &c.Orig))
		if !ok || !again || have.Orig != c.Reply || have.Reply != c.Orig {
			return changed
		}
	}
	changed, _ = w.tables.MergeConnection(c.Conn, c.State, w.tables.Supersede(&c.Conn, changed[:had]))
	return changed
}

func (w *Worker) acknowledge(h *replicate.Header, to match.Addr) {
	p := &w.peers
	i := slices.IndexFunc(p.acks, func(a ackList) bool {
		return a.to == to && a.worker == h.Worker && a.workers == h.Workers && a.n < replicate.MaxAcks
	})
	if i < 0 {
		if n := len(p.acks); n < cap(p.acks) {
			p.acks = p.acks[:n+1] // with the memory of its frame
		} else {
			p.acks = append(p.acks, ackList{})
		}
		i = len(p.acks) - 1
		a := &p.acks[i]
		a.to, a.worker, a.workers, a.n = to, h.Worker, h.Workers, 0
		mine := w.header(replicate.Acks)
		a.frame = replicate.Begin(a.frame[:0], &mine, match.SumFor(uint32(h.Worker), uint32(h.Workers)))
	}
	a := &p.acks[i]
	a.frame = replicate.AppendAck(a.frame, h.Seq)
	a.n++
}

// sendAcks queues what the batch at hand has to acknowledge.
func (w *Worker) sendAcks() {
	port := w.ports.Tunnel()
	for i := range w.peers.acks {
		a := &w.peers.acks[i]
		replicate.SetCount(a.frame, a.n)
		if port != 0 {
			w.sendToHost(port, a.to, a.frame)
		}
	}
}

func (w *Worker) acknowledged(seq uint32) {
	p := &w.peers
	if seq-p.first >= p.next-p.first {
		return // of an earlier agent, or given up
	}
	m := &p.ring[seq%unackedMax]
	if m.tries > 0 && m.part != nil {
		m.part.flight--
	}
	m.tries, m.part = 0, nil
	p.skipAcked()
}

func (p *peers) skipAcked() {
	for p.first != p.next && p.ring[p.first%unackedMax].tries == 0 {
		p.first++
	}
}

// Hello asks a host for what concerns this one. Call it through Do.
func (w *Worker) Hello(to match.Addr) {
	if port := w.ports.Tunnel(); port != 0 {
		w.now = w.clock.Now()
		w.sendMessage(port, w.begin(to, replicate.Hello, 0))
	}
}

// TellOwned tells a host of ports that were its own: once, and nobody acknowledges it. Call it through Do.
func (w *Worker) TellOwned(to match.Addr, ports []replicate.Owned) {
	port := w.ports.Tunnel()
	if port == 0 {
		return
	}
	for some := range slices.Chunk(ports, replicate.MaxOwned) {
		h := w.header(replicate.Owns)
		frame := replicate.Begin(nil, &h, 0)
		for _, o := range some {
			frame = replicate.AppendOwned(frame, o)
		}
		replicate.SetCount(frame, len(some))
		w.sendToHost(port, to, frame)
	}
}

// Unacknowledged is how many messages to other hosts are under way. Call it through Do.
func (w *Worker) Unacknowledged() int { return int(w.peers.next - w.peers.first) }

// answeredConnection notes for the peers that an answer was seen.
func (w *Worker) answeredConnection(l *sim.Learn) {
	if c, s, ok := w.tables.GetConnection(tag.Of(l.Conn, l.Device, &l.Orig)); ok {
		w.freshConnection(c, s, false)
	}
}
