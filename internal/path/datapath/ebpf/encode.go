package ebpf

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Bits of bpfStep.Flags; bpf/viaduct.h.
const (
	stepEthDst uint16 = 1 << iota
	stepEthSrc
	stepSrc
	stepDst
	stepTOS
	stepSrcPort
	stepDstPort
	stepPopVLAN
	stepPushVLAN
	stepTunnel
	stepPeer6
	stepWide
)

// Places in bpfStep.Addr.
const (
	addrSrc = iota
	addrDst
	addrPeer
	addrVLAN
)

// maxSteps is how many outputs a flow may have, MAX_STEPS.
const maxSteps = 32

// maxOrder is how many actions one step can list: a nibble each in the two words of order.
const maxOrder = 16

// encoder turns action lists into steps, one per output with the rewrites before it. A step holds each
// rewrite once, in the kernel's own order: rewrites of different
// fields commute. The list's order is kept on the side, so that decode gives the list back.
//
// A list is brought to its normal form: a rewrite that a later one overrides before any
// output is left out, and so is what comes after the last output.
type encoder struct {
	steps   []bpfWideStep // reused
	ttlCost uint8
	maxLen  uint16
	cur     bpfWideStep
	ops     [maxOrder]action.Op
	n       int // of ops
	tags    int // VLAN tags the frame is known to carry
}

// encode fills e.steps, e.ttlCost and e.maxLen. Errors wrap datapath.ErrActions.
func (e *encoder) encode(k *match.Key, as action.Physical) error {
	*e = encoder{steps: e.steps[:0]}
	if k.VLAN != 0 {
		e.tags = 1
	}
	for i := range as {
		if err := e.add(k, &as[i]); err != nil {
			return fmt.Errorf("%w: action %d: %s", datapath.ErrActions, i, err.Error())
		}
	}
	if len(e.steps) == 0 {
		e.maxLen = 0 // nothing is left of the list
	}
	cost := 0
	for i := range e.steps {
		cost += int(e.steps[i].Step.DecTtl)
	}
	if cost > 255 {
		return fmt.Errorf("%w: TTL decremented %d times", datapath.ErrActions, cost)
	}
	e.ttlCost = uint8(cost)
	return nil
}

// encodeError says why an action cannot be in a flow.
type encodeError string

func (e encodeError) Error() string { return string(e) }

const (
	errNotIP     = encodeError("the packet is not IP")
	errFamily    = encodeError("address of another family")
	errNoField   = encodeError("the packet has no such field")
	errSCTP      = encodeError("SCTP's CRC32c cannot be followed in the kernel")
	errNoTag     = encodeError("the packet has no VLAN tag")
	errTags      = encodeError("more than one tag pushed, or a pushed one popped, before an output")
	errTooLong   = encodeError("too many actions before an output")
	errTooMany   = encodeError("too many outputs")
	errCheckLen  = encodeError("a length that is not checked before all else, or against nothing")
	errUnknownOp = encodeError("not a physical action")
)

func (e *encoder) add(k *match.Key, a *action.Action) error {
	w := &e.cur
	s := &w.Step
	switch a.Op {
	case action.SetEthDst:
		s.EthDst = a.MAC
		e.set(stepEthDst, a.Op)
	case action.SetEthSrc:
		s.EthSrc = a.MAC
		e.set(stepEthSrc, a.Op)
	case action.SetSrc:
		w.Src = words(a.Addr)
		e.set(stepSrc, a.Op)
	case action.SetDst:
		w.Dst = words(a.Addr)
		e.set(stepDst, a.Op)
	case action.SetTOS:
		s.Tos = uint8(a.Value)
		e.set(stepTOS, a.Op)
	case action.SetSrcPort:
		s.SrcPort = swap16(a.Value)
		e.set(stepSrcPort, a.Op)
	case action.SetDstPort:
		s.DstPort = swap16(a.Value)
		e.set(stepDstPort, a.Op)
	case action.DecTTL:
		if s.DecTtl == 255 {
			return errTooLong
		}
		s.DecTtl++
	case action.PopVLAN:
		if e.tags == 0 {
			return errNoTag
		}
		if s.Flags&(stepPopVLAN|stepPushVLAN) != 0 {
			return errTags
		}
		e.tags--
		s.Flags |= stepPopVLAN
	case action.PushVLAN:
		if s.Flags&stepPushVLAN != 0 {
			return errTags
		}
		e.tags++
		w.Vlan = uint32(a.Value)
		s.Flags |= stepPushVLAN
	case action.Tunnel:
		s.Flags |= stepTunnel
		s.TunKey, w.Peer = a.Key, words(a.Addr)
		return e.output(a)
	case action.Output:
		return e.output(a)
	case action.CheckLen:
		if *w != (bpfWideStep{}) || len(e.steps) > 0 || e.maxLen != 0 || a.Value == 0 {
			return errCheckLen
		}
		e.maxLen = a.Value
		return applicable(k, a)
	default:
		return errUnknownOp
	}
	if err := applicable(k, a); err != nil {
		return err
	}
	return e.push(a.Op)
}

// set marks a rewrite; an earlier one of the same field is forgotten.
func (e *encoder) set(flag uint16, op action.Op) {
	if e.cur.Step.Flags&flag != 0 {
		for i := range e.n {
			if e.ops[i] == op {
				copy(e.ops[i:], e.ops[i+1:e.n])
				e.n--
				break
			}
		}
	}
	e.cur.Step.Flags |= flag
}

func (e *encoder) push(op action.Op) error {
	if e.n == maxOrder-1 && op != action.Output && op != action.Tunnel {
		return errTooLong
	}
	e.ops[e.n] = op
	e.n++
	return nil
}

func (e *encoder) output(a *action.Action) error {
	if len(e.steps) == maxSteps {
		return errTooMany
	}
	if err := e.push(a.Op); err != nil {
		return err
	}
	e.cur.Step.Port = a.Port
	var order uint64
	for i := range e.n {
		order |= uint64(e.ops[i]) << (4 * i)
	}
	e.cur.Step.Order, e.cur.Order = uint32(order), uint32(order>>32)
	e.steps = append(e.steps, e.cur)
	e.cur, e.n = bpfWideStep{}, 0
	return nil
}

// applicable reports whether packets with key k have the field that a rewrites. The same
// packets would fail in packet.Rewriter.
func applicable(k *match.Key, a *action.Action) error {
	is4, is6 := k.EthType == packet.EthTypeIPv4, k.EthType == packet.EthTypeIPv6
	switch a.Op {
	case action.SetSrc, action.SetDst:
		if !is4 && !is6 {
			return errNotIP
		}
		if a.Addr.Is4() != is4 {
			return errFamily
		}
	case action.SetTOS, action.DecTTL, action.CheckLen:
		if !is4 && !is6 {
			return errNotIP
		}
	case action.SetSrcPort, action.SetDstPort:
		switch {
		case !is4 && !is6:
			return errNotIP
		case k.Frag == match.FragLater, k.Proto == packet.ProtoTCP, k.Proto == packet.ProtoUDP:
			return nil
		case k.Proto == packet.ProtoSCTP:
			return errSCTP
		case a.Op == action.SetDstPort && isEcho(k):
			return nil
		}
		return errNoField
	}
	return nil
}

func isEcho(k *match.Key) bool {
	switch t := k.SrcPort >> 8; k.Proto {
	case packet.ProtoICMP:
		return k.EthType == packet.EthTypeIPv4 && (t == 0 || t == 8)
	case packet.ProtoICMPv6:
		return k.EthType == packet.EthTypeIPv6 && (t == 128 || t == 129)
	}
	return false
}

// compact puts into s what a flow's own step can hold of w, and reports whether that is all.
func compact(k *match.Key, w *bpfWideStep, s *bpfStep) bool {
	if w.Order != 0 {
		return false
	}
	*s = w.Step
	is4 := k.EthType == packet.EthTypeIPv4
	words, wide := 0, 0
	if s.Flags&stepSrc != 0 {
		if is4 {
			s.Addr[addrSrc] = w.Src[3]
			words++
		} else {
			s.Addr = w.Src
			wide++
		}
	}
	if s.Flags&stepDst != 0 {
		if is4 {
			s.Addr[addrDst] = w.Dst[3]
			words++
		} else {
			s.Addr = w.Dst
			wide++
		}
	}
	if s.Flags&stepPushVLAN != 0 {
		s.Addr[addrVLAN] = w.Vlan
		words++
	}
	if s.Flags&stepTunnel != 0 {
		if addr(w.Peer).Is4() {
			s.Addr[addrPeer] = w.Peer[3]
			words++
		} else {
			s.Addr = w.Peer
			s.Flags |= stepPeer6
			wide++
		}
	}
	return wide == 0 || wide == 1 && words == 0
}

// expand undoes compact.
func expand(k *match.Key, s *bpfStep) (w bpfWideStep) {
	w.Step = *s
	w.Step.Flags &^= stepPeer6
	w.Step.Addr = [4]uint32{}
	is4 := k.EthType == packet.EthTypeIPv4
	of := func(place int, is4 bool) [4]uint32 {
		if is4 {
			return mapped(s.Addr[place])
		}
		return s.Addr
	}
	if s.Flags&stepSrc != 0 {
		w.Src = of(addrSrc, is4)
	}
	if s.Flags&stepDst != 0 {
		w.Dst = of(addrDst, is4)
	}
	if s.Flags&stepTunnel != 0 {
		w.Peer = of(addrPeer, s.Flags&stepPeer6 == 0)
	}
	if s.Flags&stepPushVLAN != 0 {
		w.Vlan = s.Addr[addrVLAN]
	}
	return w
}

// decode appends the actions of one step.
func decode(dst action.Physical, w *bpfWideStep) action.Physical {
	s := &w.Step
	for order := uint64(w.Order)<<32 | uint64(s.Order); order != 0; order >>= 4 {
		a := action.Action{Op: action.Op(order & 15)}
		switch a.Op {
		case action.SetEthDst:
			a.MAC = s.EthDst
		case action.SetEthSrc:
			a.MAC = s.EthSrc
		case action.SetSrc:
			a.Addr = addr(w.Src)
		case action.SetDst:
			a.Addr = addr(w.Dst)
		case action.SetTOS:
			a.Value = uint16(s.Tos)
		case action.SetSrcPort:
			a.Value = swap16(s.SrcPort)
		case action.SetDstPort:
			a.Value = swap16(s.DstPort)
		case action.PushVLAN:
			a.Value = uint16(w.Vlan)
		case action.Tunnel:
			a.Port, a.Key, a.Addr = s.Port, s.TunKey, addr(w.Peer)
		case action.Output:
			a.Port = s.Port
		}
		dst = append(dst, a)
	}
	return dst
}

// The kernel keeps addresses as four words, ports as two bytes, in wire order.

func words(a match.Addr) (w [4]uint32) {
	*(*match.Addr)(unsafe.Pointer(&w)) = a
	return w
}

// mapped is the IPv4-mapped form.
func mapped(v4 uint32) (w [4]uint32) {
	w = words(match.Addr{10: 0xff, 11: 0xff})
	w[3] = v4
	return w
}

func addr(w [4]uint32) match.Addr { return *(*match.Addr)(unsafe.Pointer(&w)) }

func swap16(x uint16) (be uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&be))[:], x)
	return be
}
