package ovs

import (
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// maxFrame is the longest frame that fits into an attribute.
const maxFrame = maxAttr - attrLen

// sender executes packets, one batch at a time. It rewrites them itself, so that they leave
// exactly as from any other datapath, and lets the kernel do the outputs.
type sender struct {
	d     *Datapath
	conn  *conn
	rw    packet.Rewriter
	exec  *datapath.Exec   // being rewritten
	batch []*datapath.Exec // which each message of the batch belongs to
	first uint32           // number of the first message
	fail  func(seq uint32, err error)
}

func (d *Datapath) openSenders(n int) error {
	d.senders = make(chan *sender, n)
	for range n {
		c, err := newConn()
		if err != nil {
			return err
		}
		s := &sender{d: d, conn: c}
		s.rw.Emit = s.emit
		s.fail = s.failed
		d.senders <- s
		d.nsenders++
	}
	return nil
}

// closeSenders waits for those that are at work. A later Execute finds the channel closed.
func (d *Datapath) closeSenders() {
	for range d.nsenders {
		(<-d.senders).conn.close()
	}
	if d.senders != nil {
		close(d.senders)
	}
}

// Execute implements datapath.Datapath.
func (d *Datapath) Execute(es []datapath.Exec) {
	s, ok := <-d.senders
	if !ok {
		for i := range es {
			es[i].Err = datapath.ErrClosed
		}
		return
	}
	for i := range es {
		s.execute(&es[i])
	}
	s.flush()
	s.exec = nil
	d.senders <- s
}

func (s *sender) execute(e *datapath.Exec) {
	e.Err = nil
	s.exec = e
	if e.GSO.Size != 0 {
		e.Err = unix.EPROTONOSUPPORT // the module segments misses before they come up, so none is executed
		return
	}
	if v, reason := packet.Parse(e.Frame, 0); reason == 0 && packet.NeedsChecksum(&v, e.GSO) {
		packet.FillChecksum(&v)
	}
	if err := s.rw.Apply(e.Frame, e.GSO, e.Actions); err != nil && e.Err == nil {
		e.Err = err
	}
}

// emit adds one output to the batch.
func (s *sender) emit(no uint32, tunnel *action.Action, frame []byte) {
	if err := s.queue(no, tunnel, frame); err != nil && s.exec.Err == nil {
		s.exec.Err = err
	}
}

func (s *sender) queue(no uint32, tunnel *action.Action, frame []byte) error {
	p := s.d.port(no)
	if p == nil {
		return datapath.ErrNoPort
	}
	if len(frame) > maxFrame {
		return unix.EMSGSIZE
	}
	if len(s.conn.msg.b) > batchBytes {
		s.flush()
	}
	if len(s.batch) == 0 {
		s.first = s.conn.seq + 1
	}
	m := &s.conn.msg
	at := s.conn.request(s.d.packets, packetExecute, 0, s.d.ifindex)
	m.attr(packetPacket, frame)
	key := m.nest(packetKey)
	m.u32(keyInPort, s.exec.InPort)
	m.close(key)
	as := m.nest(packetActions)
	if tunnel != nil {
		m.tunnel(tunnel)
	}
	m.u32(actOutput, no)
	m.close(as)
	m.end(at)
	s.batch = append(s.batch, s.exec)
	p.executed.Add(1)
	p.bytes.Add(uint64(len(frame)))
	return nil
}

func (s *sender) flush() {
	if err := s.conn.flush(s.fail); err != nil {
		for _, e := range s.batch { // which were sent is not known
			if e.Err == nil {
				e.Err = err
			}
		}
	}
	clear(s.batch)
	s.batch = s.batch[:0]
}

func (s *sender) failed(seq uint32, err error) {
	if i := seq - s.first; i < uint32(len(s.batch)) && s.batch[i].Err == nil {
		s.batch[i].Err = err
	}
}
