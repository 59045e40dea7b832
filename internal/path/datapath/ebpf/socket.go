package ebpf

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// Sizes of a batch: packets, and bytes of the frames that had to be copied.
const (
	sendBatch = 64
	arenaSize = 256 << 10
	sendBuf   = 8 << 20
)

// vnetHdr is struct virtio_net_hdr; integers in host byte order.
type vnetHdr struct {
	flags, gsoType                         uint8
	hdrLen, gsoSize, csumStart, csumOffset uint16
}

// linux/virtio_net.h
const (
	vnetNeedsCsum = 1
	gsoTCPv4      = 1
	gsoTCPv6      = 4
	gsoUDPL4      = 5 // since Linux 6.2; before, the kernel refuses such a frame with EINVAL
	gsoECN        = 0x80
	tcpCWR        = 0x80
)

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// markCmsg is a control message with SO_MARK: which tunnel (bpf/tunnel.h).
type markCmsg struct {
	hdr  unix.Cmsghdr
	mark uint32
	_    uint32
}

// message is what one packet to be sent points to.
type message struct {
	vnet vnetHdr
	iov  [2]unix.Iovec
	to   unix.RawSockaddrLinklayer
	mark markCmsg
}

// socket batches frames onto one packet socket, which is bound to no interface and
// receives nothing (protocol 0).
type socket struct {
	fd     int
	n      int
	hdrs   [sendBatch]mmsghdr
	msgs   [sendBatch]message
	arena  []byte
	udpGSO uint8   // gsoUDPL4, or what a test has the kernel refuse
	cut    *socket // of the same fd: the datagrams of a UDP GSO frame that the kernel refused; nil before the first
}

func newSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuf)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	return newBatch(fd), nil
}

func newBatch(fd int) *socket {
	s := &socket{fd: fd, arena: make([]byte, 0, arenaSize), udpGSO: gsoUDPL4}
	for i := range s.msgs {
		m, h := &s.msgs[i], &s.hdrs[i].hdr
		m.iov[0].Base = (*byte)(unsafe.Pointer(&m.vnet))
		m.iov[0].SetLen(int(unsafe.Sizeof(m.vnet)))
		m.to = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Halen: 6}
		m.mark.hdr = unix.Cmsghdr{Level: unix.SOL_SOCKET, Type: unix.SO_MARK}
		m.mark.hdr.SetLen(unix.CmsgLen(4))
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&m.to)), unix.SizeofSockaddrLinklayer
		h.Iov = &m.iov[0]
		h.SetIovlen(2)
	}
	return s
}

// room reports whether a frame of n bytes, to be copied, fits into the batch.
func (s *socket) room(n int) bool {
	return s.n < sendBatch && len(s.arena)+n <= cap(s.arena)
}

// copy keeps a frame until the batch is sent.
func (s *socket) copy(frame []byte) []byte {
	at := len(s.arena)
	s.arena = append(s.arena, frame...)
	return s.arena[at:]
}

// add puts a frame into the batch, which must have room; the frame is the socket's until
// send returns. mark 0: none.
func (s *socket) add(ifindex int, frame []byte, vnet vnetHdr, mark uint32) {
	m, h := &s.msgs[s.n], &s.hdrs[s.n].hdr
	m.vnet = vnet
	m.iov[1].Base = unsafe.SliceData(frame)
	m.iov[1].SetLen(len(frame))
	m.to.Ifindex = int32(ifindex)
	copy(m.to.Addr[:], frame[:6])
	h.Control = nil
	h.SetControllen(0)
	m.mark.mark = mark
	if mark != 0 {
		h.Control = (*byte)(unsafe.Pointer(&m.mark))
		h.SetControllen(int(unsafe.Sizeof(m.mark)))
	}
	s.n++
}

// send sends the batch and empties it; failed is called with the index of each packet that could
// not be sent.
func (s *socket) send(failed func(int, error)) {
	for i := 0; i < s.n; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.hdrs[i])),
			uintptr(s.n-i), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EINVAL && s.msgs[i].vnet.gsoType == s.udpGSO:
			if err := s.sendCut(&s.msgs[i]); err != nil {
				failed(i, err)
			}
			i++
		case errno != 0:
			failed(i, errno)
			i++
		default:
			i += int(n)
		}
	}
	for i := range s.msgs[:s.n] {
		s.msgs[i].iov[1].Base = nil
	}
	s.n, s.arena = 0, s.arena[:0]
}

// sendCut sends the datagrams that a UDP GSO frame stands for one by one, and returns the first error.
func (s *socket) sendCut(m *message) (err error) {
	if s.cut == nil {
		s.cut = newBatch(s.fd)
	}
	c, failed := s.cut, func(_ int, e error) { err = cmp.Or(err, e) }
	v, _ := packet.Parse(unsafe.Slice(m.iov[1].Base, m.iov[1].Len), 0) // offload has parsed it
	n := packet.UDPSegments(&v, m.vnet.gsoSize)
	if n == 0 {
		return unix.EINVAL
	}
	for i := range n {
		if !c.room(int(m.vnet.hdrLen) + int(m.vnet.gsoSize)) {
			c.send(failed)
		}
		at := len(c.arena)
		c.arena = packet.AppendUDPSegment(c.arena, &v, m.vnet.gsoSize, i)
		c.add(int(m.to.Ifindex), c.arena[at:], vnetHdr{}, m.mark.mark)
	}
	c.send(failed)
	return err
}

// offload says what the device still has to do for the frame: complete its checksum, cut it into
// segments. It may complete an SCTP checksum itself, which this header cannot describe.
func (s *socket) offload(frame []byte, gso packet.GSO) (h vnetHdr, err error) {
	v, reason := packet.Parse(frame, 0)
	if reason != 0 {
		return h, packet.ErrMalformed
	}
	if !packet.NeedsChecksum(&v, gso) {
		return h, nil
	}
	if v.Key.Proto == packet.ProtoSCTP {
		packet.FillChecksum(&v)
		return h, nil
	}
	h.flags = vnetNeedsCsum
	h.csumStart = uint16(v.L4)
	h.csumOffset = uint16(packet.ChecksumOffset(&v))
	if gso.Size == 0 {
		return h, nil
	}
	h.gsoSize = gso.Size
	l4 := v.Transport()
	switch {
	case v.Key.Proto == packet.ProtoTCP:
		h.gsoType = gsoTCPv4
		if v.Is6() {
			h.gsoType = gsoTCPv6
		}
		if l4[13]&tcpCWR != 0 {
			h.gsoType |= gsoECN
		}
		h.hdrLen = uint16(v.L4) + (binary.BigEndian.Uint16(l4[12:])>>12)*4
	case v.Key.Proto == packet.ProtoUDP:
		h.gsoType = s.udpGSO
		h.hdrLen = uint16(v.L4 + packet.UDPLen)
	default:
		return h, unix.EPROTONOSUPPORT
	}
	return h, nil
}
