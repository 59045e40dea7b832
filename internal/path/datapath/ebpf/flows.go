package ebpf

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// The map library copies plain byte arrays without looking into them.
type (
	rawKey  = [match.KeySize]byte
	rawFlow = [unsafe.Sizeof(bpfFlow{})]byte
	rawWide = [unsafe.Sizeof(bpfWideStep{})]byte
)

// batchSize is how many flows one system call carries.
const batchSize = 512

// timeShift is TIME_SHIFT: a flow's last use is kept in units of 2^timeShift ns, 4 ms, which come round after 208 days.
const timeShift = 22

// flowTable writes the kernel's maps of flows and wide steps.
type flowTable struct {
	flows, steps *ebpf.Map

	mu       sync.Mutex
	enc      encoder
	keys     []rawKey
	values   []rawFlow
	replaced []run // per key of the batch: the wide steps of the flow it replaces

	wide     map[match.Key]run // of flows that have wide steps
	stale    []uint64          // numbers of steps to free after the batch
	nextStep uint64
	numbers  []uint64 // scratch
}

// run is the numbers of one flow's wide steps; n 0: it has none.
type run struct {
	first uint64
	n     uint8
}

// wideRun is the run of a flow as the kernel has it.
func wideRun(f *bpfFlow) run {
	if f.Step.Flags&stepWide == 0 {
		return run{}
	}
	return run{uint64(f.Step.Addr[1])<<32 | uint64(f.Step.Addr[0]), f.Steps}
}

// PutFlows implements datapath.Datapath. Replacing a flow resets its counters.
func (d *Datapath) PutFlows(fs []datapath.Flow) (int, error) {
	if d.closed.Load() {
		return 0, datapath.ErrClosed
	}
	t := &d.table
	t.mu.Lock()
	defer t.mu.Unlock()
	now := monotonic()
	for done := 0; done < len(fs); {
		chunk := fs[done:min(done+batchSize, len(fs))]
		n, err := t.put(chunk, func(int) bpfFlow { return bpfFlow{LastUsed: now} })
		done += n
		if err != nil {
			return done, fmt.Errorf("flow %d: %w", done, err)
		}
	}
	return len(fs), nil
}

// put installs one batch; history is what the kernel is to have counted of a flow so far.
func (t *flowTable) put(fs []datapath.Flow, history func(i int) bpfFlow) (int, error) {
	t.keys, t.values, t.replaced = t.keys[:0], t.values[:0], t.replaced[:0]
	var bad error
	for i := range fs {
		if bad = t.encode(&fs[i], history(i)); bad != nil {
			break
		}
	}
	if len(t.keys) == 0 {
		t.freeSteps()
		return 0, bad
	}
	n, err := t.flows.BatchUpdate(t.keys, t.values, nil)
	for i, old := range t.replaced {
		if i >= n { // not installed: what was there stays
			t.setWide((*match.Key)(unsafe.Pointer(&t.keys[i])), old)
			old = wideRun((*bpfFlow)(unsafe.Pointer(&t.values[i])))
		}
		t.discard(old)
	}
	t.freeSteps()
	if err != nil {
		return n, full(err)
	}
	return n, bad
}

// restore fills the table with an earlier one's flows. One that this datapath would not install is left out: its next packet is a miss.
func (t *flowTable) restore(each func(func(*datapath.FlowInfo) bool) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := monotonic()
	var (
		flows   []datapath.Flow
		history []bpfFlow
		failed  error
	)
	flush := func() bool {
		for len(flows) > 0 {
			n, err := t.put(flows, func(i int) bpfFlow { return history[i] })
			if err != nil && !errors.Is(err, datapath.ErrActions) && !errors.Is(err, datapath.ErrKey) {
				failed = err
				return false
			} else if err != nil {
				n++
			}
			flows, history = flows[n:], history[n:]
		}
		flows, history = nil, nil
		return true
	}
	err := each(func(f *datapath.FlowInfo) bool {
		flows = append(flows, datapath.Flow{Key: f.Key, Actions: slices.Clone(f.Actions)})
		history = append(history, bpfFlow{Packets: f.Packets, Bytes: f.Bytes, TcpFlags: f.TCPFlags, LastUsed: now - uint32(min(f.Idle, time.Hour)>>timeShift)})
		return len(flows) < batchSize || flush()
	})
	if err == nil && failed == nil {
		flush()
	}
	return errors.Join(err, failed)
}

// full makes the error of a table without room datapath.ErrFull.
func full(err error) error {
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("%w: %w", datapath.ErrFull, err)
	}
	return err
}

func (t *flowTable) encode(f *datapath.Flow, v bpfFlow) error {
	if err := t.enc.encode(&f.Key, f.Actions); err != nil {
		return err
	}
	steps := t.enc.steps
	v.Steps, v.MaxLen = uint8(len(steps)), t.enc.maxLen
	if len(steps) > 1 || len(steps) == 1 && !compact(&f.Key, &steps[0], &v.Step) {
		if err := t.putSteps(steps, &v); err != nil {
			return err
		}
		v.Step.DecTtl = t.enc.ttlCost
	}
	t.replaced = append(t.replaced, t.wide[f.Key])
	t.setWide(&f.Key, wideRun(&v))
	t.keys = append(t.keys, *f.Key.Bytes())
	t.values = append(t.values, *(*rawFlow)(unsafe.Pointer(&v)))
	return nil
}

// putSteps installs wide steps, under numbers that v gets.
func (t *flowTable) putSteps(steps []bpfWideStep, v *bpfFlow) error {
	r := run{t.nextStep, uint8(len(steps))}
	t.nextStep += uint64(len(steps))
	t.numbers = t.numbers[:0]
	for i := range steps {
		t.numbers = append(t.numbers, r.first+uint64(i))
	}
	if _, err := t.steps.BatchUpdate(t.numbers, unsafe.Slice((*rawWide)(unsafe.Pointer(&steps[0])), len(steps)), nil); err != nil {
		t.discard(r)
		return fmt.Errorf("steps: %w", full(err))
	}
	v.Step = bpfStep{Flags: stepWide, Addr: [4]uint32{uint32(r.first), uint32(r.first >> 32)}}
	return nil
}

func (t *flowTable) setWide(k *match.Key, r run) {
	if r.n != 0 {
		t.wide[*k] = r
	} else if len(t.wide) > 0 {
		delete(t.wide, *k)
	}
}

func (t *flowTable) discard(r run) {
	for i := range uint64(r.n) {
		t.stale = append(t.stale, r.first+i)
	}
}

// freeSteps deletes steps that no flow names any more. Numbers are not used again, so a
// packet that still holds one finds nothing rather than another flow's output.
func (t *flowTable) freeSteps() {
	for left := t.stale; len(left) > 0; {
		n, err := t.steps.BatchDelete(left, nil)
		if err != nil { // it stops at one that is already gone, which is as good
			n = min(n+1, len(left))
		}
		left = left[n:]
	}
	t.stale = t.stale[:0]
}

// DelFlows implements datapath.Datapath.
func (d *Datapath) DelFlows(keys []match.Key) error {
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	t := &d.table
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stale = t.stale[:0]
	for len(keys) > 0 {
		raw := unsafe.Slice((*rawKey)(unsafe.Pointer(&keys[0])), min(batchSize, len(keys)))
		n, err := t.flows.BatchDelete(raw, nil)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			n++ // the batch stops at a missing one
		} else if err != nil {
			return fmt.Errorf("delete flows: %w", err)
		}
		for _, k := range keys[:n] {
			if r, ok := t.wide[k]; ok {
				t.discard(r)
				delete(t.wide, k)
			}
		}
		keys = keys[n:]
	}
	t.freeSteps()
	return nil
}

// DumpFlows implements datapath.Datapath.
func (d *Datapath) DumpFlows(fn func(*datapath.FlowInfo) bool) error {
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	lookup := func(no uint64, w *bpfWideStep) error {
		return d.table.steps.Lookup(&no, (*rawWide)(unsafe.Pointer(w))[:])
	}
	if done, err := d.dumpBefore(fn); done {
		return err
	}
	var info datapath.FlowInfo
	return enough(eachBatch(d.table.flows, func(keys []rawKey, values []rawFlow) error {
		ks := unsafe.Slice((*match.Key)(unsafe.Pointer(unsafe.SliceData(keys))), len(keys))
		vs := unsafe.Slice((*bpfFlow)(unsafe.Pointer(unsafe.SliceData(values))), len(values))
		return tellFlows(&info, ks, vs, lookup, fn)
	}))
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

func enough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// tellFlows tells fn of flows that have just been read, and returns errEnough when it wants no more; info is scratch.
func tellFlows(info *datapath.FlowInfo, ks []match.Key, vs []bpfFlow, lookup func(uint64, *bpfWideStep) error, fn func(*datapath.FlowInfo) bool) error {
	now := monotonic() // once: it is a system call
	for i := range ks {
		if err := tellFlow(info, &ks[i], &vs[i], now, lookup, fn); err != nil {
			return err
		}
	}
	return nil
}

func tellFlow(info *datapath.FlowInfo, k *match.Key, f *bpfFlow, now uint32, lookup func(uint64, *bpfWideStep) error, fn func(*datapath.FlowInfo) bool) error {
	*info = datapath.FlowInfo{Key: *k, Actions: info.Actions[:0], Packets: f.Packets, Bytes: f.Bytes, TCPFlags: f.TcpFlags}
	if idle := int32(now - f.LastUsed); idle > 0 {
		info.Idle = time.Duration(idle) << timeShift
	}
	if f.MaxLen != 0 {
		info.Actions = append(info.Actions, action.Action{Op: action.CheckLen, Value: f.MaxLen})
	}
	if r := wideRun(f); r.n > 0 {
		var w bpfWideStep // on the heap: not where most flows need none
		for i := range uint64(min(int(r.n), maxSteps)) {
			if err := lookup(r.first+i, &w); errors.Is(err, ebpf.ErrKeyNotExist) { // deleted or replaced meanwhile
				return nil
			} else if err != nil {
				return err
			}
			info.Actions = decode(info.Actions, &w)
		}
	} else if f.Steps > 0 {
		w := expand(k, &f.Step)
		info.Actions = decode(info.Actions, &w)
	}
	if !fn(info) {
		return errEnough
	}
	return nil
}

// each reads the flow map, until fn returns an error.
func (t *flowTable) each(fn func(*match.Key, *bpfFlow) error) error {
	return eachBatch(t.flows, func(keys []rawKey, values []rawFlow) error {
		for i := range keys {
			if err := fn((*match.Key)(unsafe.Pointer(&keys[i])), (*bpfFlow)(unsafe.Pointer(&values[i]))); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachBatch reads a hash bucket by bucket, until fn returns an error.
func eachBatch[K, V any](m *ebpf.Map, fn func([]K, []V) error) error {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, batchSize), make([]V, batchSize)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, unix.ENOSPC) { // one bucket holds more
			size := 2 * len(keys)
			keys, values = make([]K, size), make([]V, size)
			continue
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("dump flows: %w", err)
		}
		if err := fn(keys[:n], values[:n]); err != nil {
			return err
		}
		if err != nil {
			return nil // the end
		}
	}
}

// adopt learns which wide steps the flows of an earlier agent have, and frees the others.
func (t *flowTable) adopt() error {
	used := map[uint64]bool{}
	t.nextStep = 1
	err := t.each(func(k *match.Key, f *bpfFlow) error {
		r := wideRun(f)
		t.setWide(k, r)
		for i := range uint64(r.n) {
			used[r.first+i] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	var no uint64
	raw := make([]byte, unsafe.Sizeof(bpfWideStep{}))
	for it := t.steps.Iterate(); it.Next(&no, &raw); {
		t.nextStep = max(t.nextStep, no+1)
		if !used[no] {
			t.stale = append(t.stale, no)
		}
	}
	t.freeSteps()
	return nil
}

// monotonic is the clock that the kernel stamps flows with, in its units.
func monotonic() uint32 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts) // cannot fail for this clock
	return uint32(ts.Nano() >> timeShift)
}
