package packet

import (
	"errors"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Errors of Rewriter.Apply.
var (
	ErrMalformed = errors.New("packet: frame cannot be parsed")
	ErrRewrite   = errors.New("packet: the frame has no such field to rewrite")
	ErrTTL       = errors.New("packet: TTL would reach 0")
)

// Rewriter applies actions to frames. Emit gets each output: the datapath port
// and, for a Tunnel, its action (else nil). The frame is Emit's to read, and to change in
// its bytes but not to keep, until it returns. The zero Rewriter with an Emit is
// ready; it keeps a scratch buffer, so one goroutine may use it at a time.
type Rewriter struct {
	Emit func(port uint32, tunnel *action.Action, frame []byte)

	v       View
	partial bool   // v's transport checksum holds the pseudo header only
	room    int    // free bytes in front of v.Frame in scratch
	scratch []byte // where the frame moves when it grows
}

// vlanRoom is the headroom that a move to scratch leaves: this many tags fit in before
// the next move.
const vlanRoom = 4 * VLANLen

// Apply runs the actions in order on frame, which it rewrites in place; only a PushVLAN
// moves the frame to a buffer of the Rewriter. Outputs before an error have been
// emitted, those after it are not.
//
// Transport checksums: a valid one stays valid, a partial one partial (its pseudo header
// follows the addresses), a wrong one wrong; a UDP checksum of 0 stays 0. The first fragment
// carries the checksum of the whole datagram, which is followed incrementally; in
// later fragments port rewrites do nothing. SCTP's CRC32c is recomputed when it was
// right; ports of a fragmented SCTP packet cannot be rewritten (ErrRewrite), as its CRC
// cannot be known. SetDst is taken to change the pseudo header, which it does not while an
// IPv6 routing header has segments left (RFC 8200 section 8.1): source-routed
// packets arrive with a wrong checksum.
func (r *Rewriter) Apply(frame []byte, gso GSO, as action.Physical) error {
	v, reason := Parse(frame, 0)
	if reason != drop.None {
		return ErrMalformed
	}
	r.v, r.room = v, 0
	r.partial = NeedsChecksum(&r.v, gso)
	for i := range as {
		if err := r.step(&as[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rewriter) step(a *action.Action) error {
	f := r.v.Frame
	switch a.Op {
	case action.Output:
		r.Emit(a.Port, nil, f)
	case action.Tunnel:
		r.Emit(a.Port, a, f)
	case action.SetEthDst:
		copy(f[0:6], a.MAC[:])
	case action.SetEthSrc:
		copy(f[6:12], a.MAC[:])
	case action.SetSrc:
		return r.setAddr(&r.v.Key.Src, a.Addr, 12, 8)
	case action.SetDst:
		return r.setAddr(&r.v.Key.Dst, a.Addr, 16, 24)
	case action.SetTOS:
		return r.setTOS(uint8(a.Value))
	case action.DecTTL:
		return r.decTTL()
	case action.SetSrcPort:
		return r.setPort(0, a.Value)
	case action.SetDstPort:
		return r.setPort(2, a.Value)
	case action.PushVLAN:
		r.pushVLAN(a.Value)
	case action.PopVLAN:
		return r.popVLAN()
	case action.CheckLen: // whoever applies the actions has decided for this very packet
		if r.v.L3Len == 0 {
			return ErrRewrite
		}
	default:
		return ErrRewrite
	}
	return nil
}

// setAddr writes an address: cur is where the View has it, at4 and at6 its offsets in
// an IPv4 and an IPv6 header.
func (r *Rewriter) setAddr(cur *match.Addr, to match.Addr, at4, at6 int) error {
	v := &r.v
	var field, bytes []byte
	switch {
	case v.Is4() && to.Is4():
		field, bytes = v.Frame[v.L3+at4:v.L3+at4+4], to[12:]
		r.fixIPv4(field, bytes)
	case v.Is6() && !to.Is4():
		field, bytes = v.Frame[v.L3+at6:v.L3+at6+16], to[:]
	default:
		return ErrRewrite
	}
	switch v.Key.Proto {
	case ProtoTCP, ProtoUDP, ProtoICMPv6:
		r.fixL4(field, bytes)
	}
	copy(field, bytes)
	*cur = to
	if r.partial && v.Key.Proto != ProtoSCTP {
		put16(v.Frame[v.checksumAt():], v.pseudoSum())
	}
	return nil
}

func (r *Rewriter) setTOS(tos uint8) error {
	v := &r.v
	h := v.Frame[v.L3:]
	switch {
	case v.Is4():
		r.fixIPv4(h[0:2], []byte{h[0], tos})
		h[1] = tos
	case v.Is6():
		h[0] = h[0]&0xf0 | tos>>4
		h[1] = h[1]&0x0f | tos<<4
	default:
		return ErrRewrite
	}
	return nil
}

func (r *Rewriter) decTTL() error {
	v := &r.v
	h := v.Frame[v.L3:]
	switch {
	case v.L3Len == 0:
		return ErrRewrite
	case v.TTL <= 1:
		return ErrTTL
	}
	v.TTL--
	if v.Is4() {
		r.fixIPv4(h[8:10], []byte{v.TTL, h[9]})
		h[8] = v.TTL
	} else {
		h[7] = v.TTL
	}
	return nil
}

// setPort writes the port at offset at of the transport header; for an ICMP echo the identifier
// is the destination port.
func (r *Rewriter) setPort(at int, port uint16) error {
	v := &r.v
	if v.Key.Frag == match.FragLater {
		return nil
	}
	if !v.known() {
		return ErrRewrite
	}
	h := v.Transport()
	if !v.HasPorts() {
		if at != 2 || !isEcho(v.Key.Proto, h[0]) {
			return ErrRewrite
		}
		at = 4
	}
	bytes := []byte{byte(port >> 8), byte(port)}
	if v.Key.Proto == ProtoSCTP {
		if v.Key.Frag != match.FragNone {
			return ErrRewrite
		}
		valid := sctpState(h) == ChecksumValid
		copy(h[at:], bytes)
		if valid {
			fillSCTP(h)
		}
		return nil
	}
	r.fixL4(h[at:at+2], bytes)
	copy(h[at:], bytes)
	return nil
}

// fixIPv4 follows a change in the IPv4 header.
func (r *Rewriter) fixIPv4(was, is []byte) {
	sum := r.v.Frame[r.v.L3+10:]
	put16(sum, UpdateChecksum(be16(sum), was, is))
}

// fixL4 follows a change in what a complete transport checksum covers. A partial one
// does not cover ports; addresses are setAddr's care.
func (r *Rewriter) fixL4(was, is []byte) {
	at := r.v.checksumAt()
	if at == 0 || r.partial {
		return
	}
	sum := r.v.Frame[at:]
	before := be16(sum)
	if before == 0 && r.v.Key.Proto == ProtoUDP {
		return
	}
	now := UpdateChecksum(before, was, is)
	if now == 0 && r.v.Key.Proto == ProtoUDP {
		now = 0xffff
	}
	put16(sum, now)
}

func (r *Rewriter) pushVLAN(tci uint16) {
	if r.room < VLANLen {
		r.move()
	}
	at := len(r.scratch) - len(r.v.Frame) - VLANLen
	f := r.scratch[at:]
	copy(f[:12], f[VLANLen:])
	put16(f[12:], EthTypeVLAN)
	put16(f[14:], tci)
	r.room -= VLANLen
	r.shift(f, VLANLen)
}

// move copies the frame to the end of scratch, vlanRoom bytes behind its start.
func (r *Rewriter) move() {
	old, n := r.v.Frame, vlanRoom+len(r.v.Frame)
	if cap(r.scratch) < n {
		r.scratch = make([]byte, n, max(n, 2048))
	}
	r.scratch = r.scratch[:n]
	copy(r.scratch[vlanRoom:], old) // overlaps when the frame is in scratch already
	r.room = vlanRoom
	r.v.Frame = r.scratch[vlanRoom:]
}

func (r *Rewriter) popVLAN() error {
	f := r.v.Frame
	if len(f) < EthLen+VLANLen || !isVLAN(be16(f[12:])) {
		return ErrRewrite
	}
	copy(f[VLANLen:], f[:12])
	if r.room > 0 {
		r.room += VLANLen
	}
	r.shift(f[VLANLen:], -VLANLen)
	return nil
}

// shift follows the headers by n bytes after the frame began elsewhere.
func (r *Rewriter) shift(f []byte, n int) {
	r.v.Frame = f
	if r.v.L3 != 0 {
		r.v.L3 += n
	}
	if r.v.L4 != 0 {
		r.v.L4 += n
	}
}
