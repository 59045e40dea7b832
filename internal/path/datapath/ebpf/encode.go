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
)

// maxSteps is how many outputs a flow may have, MAX_STEPS.
const maxSteps = len(bpfGroup{}.Step)

// maxOrder is how many actions one step can list: a nibble each in bpfStep.Order.
const maxOrder = 16

// encoder turns action lists into steps, one per output with the rewrites before it. A step holds each
// rewrite once, in the kernel's own order: rewrites of different
// fields commute. The list's order is kept on the side, so that decode gives the list back.
//
// A list is brought to its normal form: a rewrite that a later one overrides before any
// output is left out, and so is what comes after the last output.
type encoder struct {
	steps   []bpfStep // reused
	ttlCost uint8
	cur     bpfStep
	ops     [maxOrder]action.Op
	n       int // of ops
	tags    int // VLAN tags the frame is known to carry
}

// encode fills e.steps and e.ttlCost. Errors wrap datapath.ErrActions.
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
	cost := 0
	for i := range e.steps {
		cost += int(e.steps[i].DecTtl)
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
	errUnknownOp = encodeError("not a physical action")
)

func (e *encoder) add(k *match.Key, a *action.Action) error {
	s := &e.cur
	switch a.Op {
	case action.SetEthDst:
		s.EthDst = a.MAC
		e.set(stepEthDst, a.Op)
	case action.SetEthSrc:
		s.EthSrc = a.MAC
		e.set(stepEthSrc, a.Op)
	case action.SetSrc:
		s.Src = words(a.Addr)
		e.set(stepSrc, a.Op)
	case action.SetDst:
		s.Dst = words(a.Addr)
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
		s.Vlan = a.Value
		s.Flags |= stepPushVLAN
	case action.Tunnel:
		s.Flags |= stepTunnel
		s.TunKey, s.Peer = a.Key, words(a.Addr)
		return e.output(a)
	case action.Output:
		return e.output(a)
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
	if e.cur.Flags&flag != 0 {
		for i := range e.n {
			if e.ops[i] == op {
				copy(e.ops[i:], e.ops[i+1:e.n])
				e.n--
				break
			}
		}
	}
	e.cur.Flags |= flag
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
	e.cur.Port = a.Port
	for i := range e.n {
		e.cur.Order |= uint64(e.ops[i]) << (4 * i)
	}
	e.steps = append(e.steps, e.cur)
	e.cur, e.n = bpfStep{}, 0
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
	case action.SetTOS, action.DecTTL:
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

// decode appends the actions of one step.
func decode(dst action.Physical, s *bpfStep) action.Physical {
	for order := s.Order; order != 0; order >>= 4 {
		a := action.Action{Op: action.Op(order & 15)}
		switch a.Op {
		case action.SetEthDst:
			a.MAC = s.EthDst
		case action.SetEthSrc:
			a.MAC = s.EthSrc
		case action.SetSrc:
			a.Addr = addr(s.Src)
		case action.SetDst:
			a.Addr = addr(s.Dst)
		case action.SetTOS:
			a.Value = uint16(s.Tos)
		case action.SetSrcPort:
			a.Value = swap16(s.SrcPort)
		case action.SetDstPort:
			a.Value = swap16(s.DstPort)
		case action.PushVLAN:
			a.Value = s.Vlan
		case action.Tunnel:
			a.Port, a.Key, a.Addr = s.Port, s.TunKey, addr(s.Peer)
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

func addr(w [4]uint32) match.Addr { return *(*match.Addr)(unsafe.Pointer(&w)) }

func swap16(x uint16) (be uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&be))[:], x)
	return be
}
