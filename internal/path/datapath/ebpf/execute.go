package ebpf

import (
	"unsafe"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// execMark is EXEC_MARK: a mark that names a slot of exec_tunnels.
const execMark = 0x56440000

// sender executes packets, one batch at a time.
type sender struct {
	d       *Datapath
	sock    *socket
	rw      packet.Rewriter
	tunnels []bpfExecTunnel // its part of exec_tunnels, one slot per packet of a batch
	mark    uint32          // of tunnels[0]
	fail    func(int, error)

	// The batch: which Exec each packet of the socket belongs to.
	batch [sendBatch]*datapath.Exec
	exec  *datapath.Exec // being rewritten
	left  int            // outputs that exec still has
}

func newSender(d *Datapath, i int) (*sender, error) {
	sock, err := newSocket()
	if err != nil {
		return nil, err
	}
	s := &sender{d: d, sock: sock, tunnels: d.tunnels[i*sendBatch : (i+1)*sendBatch], mark: execMark + uint32(i*sendBatch)}
	s.rw.Emit = s.emit
	s.fail = s.failed
	return s, nil
}

// Execute implements datapath.Datapath.
func (d *Datapath) Execute(es []datapath.Exec) {
	s, ok := <-d.senders
	if !ok || d.closed.Load() {
		for i := range es {
			es[i].Err = datapath.ErrClosed
		}
		if ok {
			d.senders <- s
		}
		return
	}
	for i := range es {
		s.execute(&es[i])
	}
	s.sock.send(s.fail)
	clear(s.batch[:])
	s.exec = nil
	d.senders <- s
}

func (s *sender) execute(e *datapath.Exec) {
	e.Err = nil
	s.exec, s.left = e, 0
	for i := range e.Actions {
		if op := e.Actions[i].Op; op == action.Output || op == action.Tunnel {
			s.left++
		}
	}
	if err := s.rw.Apply(e.Frame, e.GSO, e.Actions); err != nil && e.Err == nil {
		e.Err = err
	}
}

// emit queues one output. The last output's frame stays where it is until the batch is
// sent; others are copied, since what follows rewrites them.
func (s *sender) emit(port uint32, tunnel *action.Action, frame []byte) {
	s.left--
	if err := s.queue(port, tunnel, frame); err != nil && s.exec.Err == nil {
		s.exec.Err = err
	}
}

func (s *sender) queue(port uint32, tunnel *action.Action, frame []byte) error {
	ifindex := s.d.ifindex(port)
	if ifindex == 0 {
		return datapath.ErrNoPort
	}
	vnet, err := s.sock.offload(frame, s.exec.GSO)
	if err != nil {
		return err
	}
	if s.left > 0 || !within(frame, s.exec.Frame) {
		if !s.sock.room(len(frame)) {
			s.sock.send(s.fail)
		}
		frame = s.sock.copy(frame)
	} else if !s.sock.room(0) {
		s.sock.send(s.fail)
	}
	i, mark := s.sock.n, uint32(0)
	if tunnel != nil {
		s.tunnels[i] = bpfExecTunnel{Key: tunnel.Key, Peer: words(tunnel.Addr)}
		mark = s.mark + uint32(i)
	}
	s.batch[i] = s.exec
	s.sock.add(ifindex, frame, vnet, mark)
	return nil
}

func (s *sender) failed(i int, err error) {
	if s.batch[i].Err == nil {
		s.batch[i].Err = err
	}
}

// within reports whether a's memory is part of b's.
func within(a, b []byte) bool {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(a))) - uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return at < uintptr(len(b))
}
