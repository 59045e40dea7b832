package worker

import (
	"slices"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

// What this host has learnt of connections is told to the hosts to which their packets go, before the packets themselves: the
// answer may enter there (package replicate).

const (
	unackedMax   = 4096 // messages that wait to be acknowledged; the oldest gives way
	resendAfter  = int64(200 * time.Millisecond)
	resendAtMost = 5
)

// peers is what one worker tells other hosts.
type peers struct {
	fresh []replicate.Conn // of the packet at hand: begun or answered
	told  []match.Addr     // of the packet at hand

	// Ring of messages by sequence number. A slot's frame is also what is sent, so it must outlive the batch.
	ring          []message
	first, next   uint32 // unacknowledged are within
	retold, given uint64

	acks []ackList // to be sent with the batch at hand
}

type message struct {
	to    match.Addr
	frame []byte
	at    int64
	tries int // 0: acknowledged, or never used
}

// ackList is what is to be acknowledged to one worker of a host.
type ackList struct {
	to              match.Addr
	worker, workers uint16
	frame           []byte
	n               int
}

// freshConnection notes that the packet at hand has begun a connection, or is an answer of one.
func (w *Worker) freshConnection(c conntrack.Conn, s conntrack.State) {
	w.peers.fresh = append(w.peers.fresh, replicate.Conn{Conn: c, State: s})
}

// tellPeers sends what is fresh to the hosts to which the packet with key k is about to go.
func (w *Worker) tellPeers(k *match.Key, as action.Physical) {
	p := &w.peers
	if len(p.fresh) == 0 {
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
	p.fresh = p.fresh[:0]
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
		}
		p.first++
	}
	h := w.header(kind)
	h.Seq = p.next
	p.next++
	m.to, m.at, m.tries = to, w.now, 1
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
				changed, _ = w.tables.MergeConnection(c.Conn, c.State, changed)
			}
		}
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
	}
	w.consumed()
	return true
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
	p.ring[seq%unackedMax].tries = 0
	p.skipAcked()
}

func (p *peers) skipAcked() {
	for p.first != p.next && p.ring[p.first%unackedMax].tries == 0 {
		p.first++
	}
}

// resend repeats what was not acknowledged in time, a few at a turn, and gives up in the end: what is still in use is told
// again anyway (refresh).
func (w *Worker) resend() {
	p := &w.peers
	port := w.ports.Tunnel()
	for seq, left := p.first, 64; seq != p.next && left > 0; seq++ {
		m := &p.ring[seq%unackedMax]
		if m.tries == 0 {
			continue
		}
		if w.now-m.at < resendAfter {
			break // later ones are younger, or have been repeated since
		}
		left--
		if m.tries == resendAtMost || port == 0 {
			m.tries = 0
			p.given++
			continue
		}
		m.tries++
		m.at = w.now
		p.retold++
		w.sendMessage(port, m)
	}
	p.skipAcked()
}

// refresh tells again of the connections of a flow into a tunnel that is in use, so that they live as long there as here.
func (w *Worker) refresh(e flow.Entry) {
	as := e.Actions()
	for i := range as {
		if a := &as[i]; a.Op == action.Tunnel {
			w.tellEntry(e, a.Port, a.Addr)
		}
	}
}

func (w *Worker) tellEntry(e flow.Entry, port uint32, to match.Addr) {
	p := &w.peers
	p.fresh = p.fresh[:0]
	for _, t := range e.Kept() {
		if !t.Kind.IsConnection() {
			continue
		}
		c, s, ok := w.tables.GetConnection(t)
		if ok && !slices.ContainsFunc(p.fresh, func(x replicate.Conn) bool { return x.Conn == c }) {
			p.fresh = append(p.fresh, replicate.Conn{Conn: c, State: s})
		}
	}
	k := e.Key()
	w.tellConns(port, to, p.fresh, k.ConnectionSum())
	p.fresh = p.fresh[:0]
}

// tellEnding tells that TCP ends in the direction of a flow, which the other host cannot see.
func (w *Worker) tellEnding(e flow.Entry, rst bool) {
	p := &w.peers
	as := e.Actions()
	for i := range as {
		if as[i].Op != action.Tunnel {
			continue
		}
		p.fresh = p.fresh[:0]
		for _, t := range e.Kept() {
			if !t.Kind.IsConnection() {
				continue
			}
			c, s, ok := w.tables.GetConnection(t)
			now := s | conntrack.FinReply
			if rst {
				now = s | conntrack.Reset
			} else if t.Tuple() == c.Orig {
				now = s | conntrack.FinOrig
			}
			if ok && now != s {
				w.freshConnection(c, now)
			}
		}
		k := e.Key()
		w.tellConns(as[i].Port, as[i].Addr, p.fresh, k.ConnectionSum())
	}
	p.fresh = p.fresh[:0]
}

// TellHost tells a host that has begun anew what concerns it. Call it through Do.
func (w *Worker) TellHost(to match.Addr) {
	w.now = w.clock.Now()
	for e := range w.flows.Entries() {
		if e.Kind() != flow.Stateful {
			continue
		}
		as := e.Actions()
		if i := slices.IndexFunc(as, func(a action.Action) bool { return a.Op == action.Tunnel && a.Addr == to }); i >= 0 {
			w.tellEntry(e, as[i].Port, to)
		}
		if w.batch.full(w.cfg.Batch) {
			w.emit()
		}
	}
}

// Hello asks a host for what concerns this one. Call it through Do.
func (w *Worker) Hello(to match.Addr) {
	if port := w.ports.Tunnel(); port != 0 {
		w.now = w.clock.Now()
		w.sendMessage(port, w.begin(to, replicate.Hello, 0))
	}
}

// Unacknowledged is how many messages to other hosts are under way. Call it through Do.
func (w *Worker) Unacknowledged() int { return int(w.peers.next - w.peers.first) }

// answeredConnection notes for the peers that an answer was seen.
func (w *Worker) answeredConnection(l *sim.Learn) {
	if c, s, ok := w.tables.GetConnection(tag.Of(l.Conn, l.Device, &l.Orig)); ok {
		w.freshConnection(c, s)
	}
}
