package ovs

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// script is a kernel that answers requests as fail says.
type script struct {
	t       testing.TB
	fail    func(cmd uint8, port uint32, acked bool) unix.Errno
	recvErr []error  // of the next receives
	out     [][]byte // answers
	flows   map[uint32]bool
}

// newScript is a datapath on top of a script; flows are told apart by their ingress port.
func newScript(t testing.TB, fail func(cmd uint8, port uint32, acked bool) unix.Errno) (*Datapath, *script) {
	s := &script{t: t, fail: fail, flows: map[uint32]bool{}}
	d := &Datapath{flows: 30, packets: 31, opts: Options{Name: "x"}, owner: -1}
	d.ports.Store(&map[uint32]*port{1: {no: 1}, 2: {no: 2}})
	d.table.conn = s.conn()
	d.senders = make(chan *sender, 1)
	snd := &sender{d: d, conn: s.conn()}
	snd.rw.Emit, snd.fail = snd.emit, snd.failed
	d.senders <- snd
	return d, s
}

func (s *script) conn() *conn {
	return &conn{fd: -1, buf: make([]byte, recvSize), send: s.send, recv: s.recv}
}

func (s *script) send(_ int, b []byte) error {
	for len(b) > 0 {
		r, rest, err := split(b)
		if err != nil {
			s.t.Fatal(err)
		}
		b = rest
		cmd, _, as, err := r.payload()
		if err != nil {
			s.t.Fatal(err)
		}
		in, _ := findU32(find(as, flowKey), keyInPort)
		acked := r.flags&unix.NLM_F_ACK != 0
		errno := unix.Errno(0)
		if s.fail != nil {
			errno = s.fail(cmd, in, acked)
		}
		if errno == 0 {
			s.flows[in] = cmd == cmdNew
		}
		if errno != 0 || acked {
			s.answer(unix.NLMSG_ERROR, 0, r.seq, ne.AppendUint32(nil, uint32(-int32(errno))))
		}
	}
	return nil
}

func (s *script) answer(typ, flags uint16, seq uint32, body []byte) {
	b := make([]byte, unix.NLMSG_HDRLEN)
	ne.PutUint32(b, uint32(len(b)+len(body)))
	ne.PutUint16(b[4:], typ)
	ne.PutUint16(b[6:], flags)
	ne.PutUint32(b[8:], seq)
	s.out = append(s.out, append(b, body...))
}

func (s *script) recv(_ int, b []byte, flags int) (int, error) {
	if len(s.recvErr) > 0 {
		err := s.recvErr[0]
		s.recvErr = s.recvErr[1:]
		if err == unix.ENOBUFS {
			s.out = nil // lost
		}
		return 0, err
	}
	if len(s.out) == 0 {
		if flags&unix.MSG_DONTWAIT == 0 {
			s.t.Fatal("would wait for ever")
		}
		return 0, unix.EAGAIN
	}
	n := copy(b, s.out[0])
	s.out = s.out[1:]
	return n, nil
}

func flowsOf(ports ...uint32) (fs []datapath.Flow, ks []match.Key) {
	for _, p := range ports {
		k := match.Key{InPort: p, EthType: packet.EthTypeIPv4, Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Proto: packet.ProtoUDP}
		ks = append(ks, k)
		fs = append(fs, datapath.Flow{Key: k, Actions: action.Physical{{Op: action.Output, Port: 2}}})
	}
	return fs, ks
}

func TestPutFails(t *testing.T) {
	for errno, want := range map[unix.Errno]error{unix.EINVAL: datapath.ErrActions, unix.ENOMEM: datapath.ErrFull, unix.EEXIST: unix.EEXIST, unix.ENOENT: unix.ENOENT, unix.EBUSY: unix.EBUSY} {
		d, s := newScript(t, func(cmd uint8, port uint32, _ bool) unix.Errno {
			if cmd == cmdNew && port == 3 {
				return errno
			}
			return 0
		})
		fs, _ := flowsOf(1, 2, 3, 4, 5)
		if n, err := d.PutFlows(fs); n != 2 || !errors.Is(err, want) {
			t.Errorf("%v: %d %v", errno, n, err)
		}
		for port, there := range map[uint32]bool{1: true, 2: true, 3: false, 4: false, 5: false} {
			if s.flows[port] != there {
				t.Errorf("%v: flow %d: %v", errno, port, s.flows[port])
			}
		}
	}
}

// TestPutOverrun: when the kernel's answers are lost, each flow is put again and asked about.
func TestPutOverrun(t *testing.T) {
	d, s := newScript(t, func(cmd uint8, port uint32, acked bool) unix.Errno {
		if cmd == cmdNew && port == 2 && acked {
			return unix.EINVAL
		}
		return 0
	})
	s.recvErr = []error{unix.ENOBUFS}
	fs, ks := flowsOf(1, 2)
	if n, err := d.PutFlows(fs); n != 1 || !errors.Is(err, datapath.ErrActions) {
		t.Errorf("%d %v", n, err)
	}
	s.recvErr = []error{unix.ENOBUFS}
	if err := d.DelFlows(ks); err != nil || s.flows[1] {
		t.Errorf("%v %v", err, s.flows)
	}
}

func TestDeleteFails(t *testing.T) {
	errno := unix.ENOENT
	d, _ := newScript(t, func(cmd uint8, port uint32, _ bool) unix.Errno {
		if port == 2 {
			return errno
		}
		return 0
	})
	_, ks := flowsOf(1, 2, 3)
	if err := d.DelFlows(ks); err != nil {
		t.Errorf("a missing one: %v", err)
	}
	errno = unix.EBUSY
	if err := d.DelFlows(ks); !errors.Is(err, unix.EBUSY) {
		t.Errorf("busy: %v", err)
	}
}

func TestExecuteFails(t *testing.T) {
	d, s := newScript(t, nil)
	calls := 0
	s.fail = func(uint8, uint32, bool) unix.Errno {
		if calls++; calls == 2 {
			return unix.ENODEV
		}
		return 0
	}
	frame := func() []byte {
		return packet.BuildUDP(nil, packet.Ether{}, packet.IP{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2")}, 1, 2, nil)
	}
	out := action.Physical{{Op: action.Output, Port: 2}}
	es := []datapath.Exec{{Frame: frame(), Actions: out}, {Frame: frame(), Actions: out}, {Frame: frame(), Actions: out},
		{Frame: frame(), Actions: out, GSO: packet.GSO{Size: 1000, Segs: 2}}}
	d.Execute(es)
	for i, want := range []error{nil, unix.ENODEV, nil, unix.EPROTONOSUPPORT} {
		if !errors.Is(es[i].Err, want) {
			t.Errorf("packet %d: %v", i, es[i].Err)
		}
	}
	s.recvErr = []error{unix.ENOBUFS}
	d.Execute(es[:1])
	if !errors.Is(es[0].Err, unix.ENOBUFS) {
		t.Errorf("overrun: %v", es[0].Err)
	}
	d.Execute(es[:1])
	if es[0].Err != nil {
		t.Errorf("after an overrun: %v", es[0].Err)
	}
}

// TestDumpInterrupted: a dump that the kernel marks as inconsistent is made again; one that always is fails.
func TestDumpInterrupted(t *testing.T) {
	fs, _ := flowsOf(1)
	for _, c := range []struct {
		interruptions, calls int
		want                 error
	}{{0, 1, nil}, {1, 2, nil}, {2, 3, nil}, {3, 3, unix.EINTR}} {
		d, s := newScript(t, nil)
		conn := s.conn()
		dumps := 0
		conn.send = func(_ int, b []byte) error {
			r, _, _ := split(b)
			d.table.conn.msg.b = nil
			if err := d.encode(&fs[0], 0); err != nil {
				t.Fatal(err)
			}
			flags := uint16(unix.NLM_F_MULTI)
			if dumps++; dumps <= c.interruptions {
				flags |= unix.NLM_F_DUMP_INTR
			}
			s.answer(30, flags, r.seq, d.table.conn.msg.b[unix.NLMSG_HDRLEN:])
			s.answer(unix.NLMSG_DONE, flags, r.seq, make([]byte, 4))
			return nil
		}
		calls := 0
		err := d.dumpFlows(conn, func(f *datapath.FlowInfo) bool { calls++; return f.Key == fs[0].Key })
		if calls != c.calls || !errors.Is(err, c.want) {
			t.Errorf("%d interruptions: %d calls, %v", c.interruptions, calls, err)
		}
	}
}

// TestMalformedReplies: nothing that the kernel could send makes us crash or wait.
func TestMalformedReplies(t *testing.T) {
	for _, bad := range [][]byte{{1, 2, 3}, {255, 255, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, {20, 0, 0, 0, 30, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9}} {
		d, s := newScript(t, nil)
		conn := s.conn()
		conn.send = func(int, []byte) error { s.out = append(s.out, bad); return nil }
		if err := d.dumpFlows(conn, func(*datapath.FlowInfo) bool { return true }); err == nil {
			t.Errorf("% x is taken for an answer", bad)
		}
	}
}

// TestAllocations: the steady paths do without.
func TestAllocations(t *testing.T) {
	d, s := newScript(t, nil)
	s.flows = map[uint32]bool{1: true}
	d.table.conn.send = func(int, []byte) error { return nil }
	fs, ks := flowsOf(1)
	snd := <-d.senders
	snd.conn.send = func(int, []byte) error { return nil }
	d.senders <- snd
	es := []datapath.Exec{{Frame: packet.BuildUDP(nil, packet.Ether{}, packet.IP{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2")}, 1, 2, nil), Actions: fs[0].Actions}}
	q := newQueue()
	m, up := &datapath.Miss{}, upcallMessage(packetMiss, es[0].Frame, nil)
	ms := []*datapath.Miss{{}}
	for name, fn := range map[string]func(){
		"put":     func() { _, _ = d.PutFlows(fs) },
		"delete":  func() { _ = d.DelFlows(ks) },
		"execute": func() { d.Execute(es) },
		"miss": func() {
			if err := parseMiss(m, up, 77, 1, false); err != nil {
				t.Fatal(err)
			}
			q.push(m)
			if n, _ := q.pop(ms); n != 1 {
				t.Fatal("not there")
			}
		},
	} {
		for range 40 {
			fn() // buffers reach their size
		}
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
