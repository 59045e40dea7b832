package ebpf

import (
	"errors"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// convertible are the other layouts (LAYOUT_VERSION) that are known. What a field of theirs means, this one's of the same name means; what is
// new is zero. Flows are converted by way of what they do: those of layouts 1 to 3, where a flow's fields meant something else, by eachFlow2 and eachFlow3.
// The records on the rings (struct miss) are the same in all of them. Whoever changes the layout adds the one before. Where a field changes its meaning and keeps its name, it gets a converter here; without
// one it is not to be on the list, and its flows are simulated anew: see migrate.go.
var convertible = []uint32{1, 2, 3, 4}

// eachByName reads flows of a layout whose fields have this one's names.
func eachByName(flows, steps *reader, fn func(*datapath.FlowInfo) bool) error {
	var info datapath.FlowInfo
	return enough(flows.each(func(keys, values []byte, n int) error {
		ks := unsafe.Slice((*match.Key)(unsafe.Pointer(unsafe.SliceData(keys))), n)
		vs := unsafe.Slice((*bpfFlow)(unsafe.Pointer(unsafe.SliceData(values))), n)
		return tellFlows(&info, ks, vs, stepsOf(steps), fn)
	}))
}

// stepsOf finds wide steps, which have this layout's names in all layouts that have any.
func stepsOf(steps *reader) func(no uint64, w *bpfWideStep) error {
	return func(no uint64, w *bpfWideStep) error {
		b, err := steps.lookup(no)
		if err == nil {
			*w = *(*bpfWideStep)(unsafe.Pointer(unsafe.SliceData(b)))
		}
		return err
	}
}

// Layout 3: what a flow's TTL must be above, and that its steps are wide, are in bytes of their own. No length is checked.
type (
	flow3 struct {
		packets, bytes                 uint64
		lastUsed                       uint32
		tcpFlags, steps, ttlCost, wide uint8
		step                           step3
	}
	step3 struct {
		flags            uint16
		decTTL, tos      uint8
		port, tunKey     uint32
		srcPort, dstPort uint16 // be16
		ethDst, ethSrc   [6]byte
		order            uint32
		addr             [4]uint32
	}
	rawFlow3 = [unsafe.Sizeof(flow3{})]byte
)

// now is the same flow.
func (f *flow3) now() bpfFlow {
	s := &f.step
	v := bpfFlow{Packets: f.packets, Bytes: f.bytes, LastUsed: f.lastUsed, TcpFlags: f.tcpFlags, Steps: f.steps,
		Step: bpfStep{Flags: s.flags, DecTtl: f.ttlCost, Tos: s.tos, Port: s.port, TunKey: s.tunKey, SrcPort: s.srcPort, DstPort: s.dstPort,
			EthDst: s.ethDst, EthSrc: s.ethSrc, Order: s.order, Addr: s.addr}}
	if f.wide != 0 {
		v.Step.Flags |= stepWide
	}
	return v
}

// eachFlow3 reads flows of layout 3.
func eachFlow3(flows *ebpf.Map, steps *reader, fn func(*datapath.FlowInfo) bool) error {
	var info datapath.FlowInfo
	var vs []bpfFlow
	return enough(eachBatch(flows, func(ks []rawKey, was []rawFlow3) error {
		vs = vs[:0]
		for i := range was {
			vs = append(vs, (*flow3)(unsafe.Pointer(&was[i])).now())
		}
		return tellFlows(&info, unsafe.Slice((*match.Key)(unsafe.Pointer(unsafe.SliceData(ks))), len(ks)), vs, stepsOf(steps), fn)
	}))
}

// Layouts 1 and 2: a flow has one step, or a group of them.
type (
	flow2 struct {
		packets, bytes uint64
		lastUsed       uint64 // CLOCK_MONOTONIC, ns
		tcpFlags       uint32
		steps          uint16
		ttlCost, _     uint8
		group, _       uint32
		step           step2
	}
	step2 struct {
		flags          uint16
		decTTL, tos    uint8
		port, tunKey   uint32
		vlan           uint16
		srcPort        uint16 // be16
		dstPort        uint16
		ethDst, ethSrc [6]byte
		_              uint16
		src, dst, peer [4]uint32
		order          uint64
	}
	group2 struct {
		steps, _ uint32
		step     [maxSteps]step2
	}
	rawFlow2  = [unsafe.Sizeof(flow2{})]byte
	rawGroup2 = [unsafe.Sizeof(group2{})]byte
)

// now is the same step.
func (s *step2) now() (w bpfWideStep) {
	w.Step = bpfStep{Flags: s.flags, DecTtl: s.decTTL, Tos: s.tos, Port: s.port, TunKey: s.tunKey, SrcPort: s.srcPort, DstPort: s.dstPort,
		EthDst: s.ethDst, EthSrc: s.ethSrc, Order: uint32(s.order)}
	w.Src, w.Dst, w.Peer, w.Order, w.Vlan = s.src, s.dst, s.peer, uint32(s.order>>32), uint32(s.vlan)
	return w
}

// eachFlow2 reads flows of layouts 1 and 2.
func eachFlow2(flows, groups *ebpf.Map, fn func(*datapath.FlowInfo) bool) error {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts) // cannot fail for this clock
	now := uint64(ts.Nano())
	var info datapath.FlowInfo
	return enough(eachBatch(flows, func(ks []rawKey, vs []rawFlow2) error {
		for i := range ks {
			f := (*flow2)(unsafe.Pointer(&vs[i]))
			info = datapath.FlowInfo{Key: *(*match.Key)(unsafe.Pointer(&ks[i])), Actions: info.Actions[:0], Packets: f.packets, Bytes: f.bytes,
				TCPFlags: uint8(f.tcpFlags)}
			if now > f.lastUsed {
				info.Idle = time.Duration(now - f.lastUsed)
			}
			steps := []step2{f.step}[:min(f.steps, 1)]
			if f.steps > 1 {
				var raw rawGroup2
				if err := groups.Lookup(f.group, raw[:]); errors.Is(err, ebpf.ErrKeyNotExist) { // was being replaced
					continue
				} else if err != nil {
					return err
				}
				g := (*group2)(unsafe.Pointer(&raw))
				steps = g.step[:min(g.steps, maxSteps)]
			}
			for i := range steps {
				w := steps[i].now()
				info.Actions = decode(info.Actions, &w)
			}
			if !fn(&info) {
				return errEnough
			}
		}
		return nil
	}))
}
