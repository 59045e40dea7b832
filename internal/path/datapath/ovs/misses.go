package ovs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

const (
	// maxUpcall is the longest message: a frame of 64 KB, its key, and user data.
	maxUpcall = 1<<16 + 4<<10
	// turnSize is how many messages of one port are read before it is the next one's turn.
	turnSize = 16
	// checkTurn is how often, in milliseconds, the reader looks whether the datapath is still there, and tokens come back of misses
	// that had no room on a socket. The default room is for more than there are tokens.
	checkTurn = 1000
	// stopEvent stands for the event that ends the reader, where others have port numbers.
	stopEvent = 0
)

// reader takes what the kernel sends up off the ports' sockets, in turns of equal size. What comes has a token already,
// or else is thrown away here, uncopied, when its port has none.
type reader struct {
	d      *Datapath
	poll   int // epoll
	stop   int // eventfd
	done   chan struct{}
	events []unix.EpollEvent
	buf    []byte
	miss   datapath.Miss
	recv   func(fd int, b []byte, flags int) (int, error)
}

func newReader(d *Datapath) (_ *reader, err error) {
	r := &reader{d: d, poll: -1, stop: -1, done: make(chan struct{}), events: make([]unix.EpollEvent, 64), buf: make([]byte, maxUpcall), recv: recvFrom}
	if r.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if r.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = r.watch(r.stop, stopEvent)
	}
	if err != nil {
		r.release()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return r, nil
}

// watch adds a socket; closing it takes it off again.
func (r *reader) watch(fd int, no uint32) error {
	return unix.EpollCtl(r.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(no)})
}

// close ends run and waits for it.
func (r *reader) close() {
	_, _ = unix.Write(r.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // fails only when a stop is pending
	<-r.done
	r.release()
}

func (r *reader) release() {
	for _, fd := range []int{r.poll, r.stop} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (r *reader) run() {
	defer close(r.done)
	checked := monotonic()
	for {
		n, err := unix.EpollWait(r.poll, r.events, checkTurn)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // not while the descriptor is open
		}
		if now := monotonic(); now-checked >= checkTurn*1e6 {
			checked = now
			r.check()
		}
		for _, e := range r.events[:max(n, 0)] {
			if e.Fd == stopEvent {
				return
			}
			// DelPort closes the socket under the same lock.
			r.d.reading.Lock()
			if p := r.d.port(uint32(e.Fd)); p != nil {
				r.turn(p)
			}
			r.d.reading.Unlock()
		}
	}
}

// check is what is done every checkTurn.
func (r *reader) check() {
	if r.d.gone() {
		for _, q := range r.d.queues {
			q.close(fmt.Errorf("%w: %s", datapath.ErrGone, r.d.opts.Name))
		}
	}
	if r.d.cells == nil {
		return
	}
	r.d.reading.Lock()
	defer r.d.reading.Unlock()
	for _, p := range *r.d.ports.Load() {
		r.d.giveBackLost(p)
	}
}

// turn reads from one port, and reports whether there may be more.
func (r *reader) turn(p *port) bool {
	guarded := r.d.cells != nil
	for range turnSize {
		b := r.buf
		if !guarded && atomic.LoadInt64(p.credit) <= 0 && atomic.LoadInt64(r.d.root) <= 0 {
			b = b[:0]
		}
		n, err := r.recv(p.fd, b, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.ENOBUFS): // some were lost, SO_MEMINFO says how many
			continue
		case err != nil:
			return false // EAGAIN: no more
		case len(b) == 0:
			p.drops[drop.NoCredit].Add(1)
		case n > len(b):
			r.unfit(p, drop.TooBig)
		default:
			r.upcall(p, b[:n])
		}
	}
	return true
}

// unfit counts a message that becomes no miss. Its token goes back.
func (r *reader) unfit(p *port, why drop.Reason) {
	p.drops[why].Add(1)
	if r.d.cells != nil {
		atomic.AddInt64(p.credit, 1)
	}
}

// giveBackLost gives back the tokens of messages that had no room on the port's socket. The caller holds reading.
func (d *Datapath) giveBackLost(p *port) {
	n := uint32(lost(p.fd)) // it wraps
	atomic.AddInt64(p.credit, int64(n-p.lost))
	p.lost = n
}

// upcall makes a miss of a message.
func (r *reader) upcall(p *port, b []byte) {
	m := &r.miss
	if err := parseMiss(m, b, r.d.packets, p.no, p.class == datapath.Tunnel); err != nil {
		r.unfit(p, drop.Malformed)
		return
	}
	m.Lent = false // unless known: the program that takes tokens in the kernel cannot add to the message
	if r.d.cells == nil {
		var ok bool
		if ok, m.Lent = htb.Take(p.credit, r.d.root); !ok {
			why := drop.NoCredit
			if htb.IsClosed(p.credit) {
				why = drop.NotReady
			}
			p.drops[why].Add(1)
			return
		}
	}
	p.admitted.Add(1)
	m.Time = monotonic()
	r.d.queues[m.Key.ConnectionHash()%uint32(len(r.d.queues))].push(m)
}

// parseMiss fills m from a message that came for port no; m.Frame is part of b.
func parseMiss(m *datapath.Miss, b []byte, family uint16, no uint32, tunnel bool) error {
	r, _, err := split(b)
	if err != nil {
		return err
	}
	cmd, _, as, err := r.payload()
	if err != nil {
		return err
	}
	if r.typ != family || cmd != packetMiss && cmd != packetAction {
		return fmt.Errorf("netlink: message %d, command %d", r.typ, cmd)
	}
	*m = datapath.Miss{Frame: find(as, packetPacket)}
	if cmd == packetAction {
		switch note := find(as, packetUserdata); len(note) {
		case decTTLNotes:
			m.Reason = datapath.MissTTL
			restoreTTL(m.Frame, uint8(ne.Uint16(note)))
		case lengthNotes:
			m.Reason = datapath.MissMTU
		default:
			return errForeign
		}
	}
	v, reason := packet.Parse(m.Frame, no)
	if reason != drop.None {
		return packet.ErrMalformed
	}
	m.Key = v.Key
	if tunnel {
		if id := find(find(find(as, packetKey), keyTunnel), tunID); len(id) == 8 {
			m.Key.TunKey = uint32(binary.BigEndian.Uint64(id))
		}
	}
	return nil
}

// restoreTTL undoes the decrements that went well before the one that did not.
func restoreTTL(frame []byte, n uint8) {
	v, reason := packet.Parse(frame, 0)
	if n == 0 || reason != drop.None {
		return
	}
	switch h := frame[v.L3:]; v.Key.EthType {
	case packet.EthTypeIPv4:
		was := [2]byte{h[8], h[9]}
		h[8] += n
		sum := binary.BigEndian.Uint16(h[10:])
		binary.BigEndian.PutUint16(h[10:], packet.UpdateChecksum(sum, was[:], h[8:10]))
	case packet.EthTypeIPv6:
		h[7] += n
	}
}

// lost is how many messages the kernel dropped because the socket's buffer was full.
func lost(fd int) uint64 {
	const drops = 8 // SK_MEMINFO_DROPS
	var info [9]uint32
	memInfo(fd, &info)
	return uint64(info[drops])
}

// memInfo reads SO_MEMINFO; it stays zero when that fails, as on a closed socket.
func memInfo(fd int, info *[9]uint32) {
	const soMeminfo = 55
	n := uint32(unsafe.Sizeof(*info))
	_, _, _ = unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, soMeminfo,
		uintptr(unsafe.Pointer(info)), uintptr(unsafe.Pointer(&n)), 0)
}

// monotonic is the clock that misses are stamped with and that the kernel counts Used in.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return ts.Nano()
}
