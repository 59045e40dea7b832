package ebpf

import (
	"errors"
	"fmt"
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
)

// batchSize is how many flows one system call carries.
const batchSize = 512

// flowTable writes the kernel's flow and group maps.
type flowTable struct {
	flows, groups *ebpf.Map

	mu        sync.Mutex
	enc       encoder
	keys      []rawKey
	values    []rawFlow
	replaced  []uint32             // per key of the batch: the group of the flow it replaces, or 0
	groupOf   map[match.Key]uint32 // flows with several outputs
	stale     []uint32             // groups to free after the batch
	nextGroup uint32
}

// PutFlows implements datapath.Datapath. Replacing a flow resets its counters.
func (d *Datapath) PutFlows(fs []datapath.Flow) (int, error) {
	if d.closed.Load() {
		return 0, datapath.ErrClosed
	}
	t := &d.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for done := 0; done < len(fs); {
		chunk := fs[done:min(done+batchSize, len(fs))]
		n, err := t.put(chunk)
		done += n
		if err != nil {
			return done, fmt.Errorf("flow %d: %w", done, err)
		}
	}
	return len(fs), nil
}

// put installs one batch.
func (t *flowTable) put(fs []datapath.Flow) (int, error) {
	now := monotonic()
	t.keys, t.values, t.replaced = t.keys[:0], t.values[:0], t.replaced[:0]
	var bad error
	for i := range fs {
		if bad = t.encode(&fs[i], now); bad != nil {
			break
		}
	}
	if len(t.keys) == 0 {
		return 0, bad
	}
	n, err := t.flows.BatchUpdate(t.keys, t.values, nil)
	for i, old := range t.replaced {
		f := (*bpfFlow)(unsafe.Pointer(&t.values[i]))
		if i >= n { // not installed: what was there stays
			t.setGroup((*match.Key)(unsafe.Pointer(&t.keys[i])), old)
			old = f.Group
		}
		if old != 0 {
			t.stale = append(t.stale, old)
		}
	}
	t.freeGroups()
	if err != nil {
		if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOMEM) {
			err = fmt.Errorf("%w: %w", datapath.ErrFull, err)
		}
		return n, err
	}
	return n, bad
}

func (t *flowTable) encode(f *datapath.Flow, now uint64) error {
	if err := t.enc.encode(&f.Key, f.Actions); err != nil {
		return err
	}
	v := bpfFlow{LastUsed: now, Steps: uint16(len(t.enc.steps)), TtlCost: t.enc.ttlCost}
	switch len(t.enc.steps) {
	case 0:
	case 1:
		v.Step = t.enc.steps[0]
	default:
		g := bpfGroup{Steps: uint32(len(t.enc.steps))}
		copy(g.Step[:], t.enc.steps)
		t.nextGroup++
		v.Group = t.nextGroup
		if err := t.groups.Put(v.Group, (*[unsafe.Sizeof(g)]byte)(unsafe.Pointer(&g))[:]); err != nil {
			return fmt.Errorf("%w: groups: %w", datapath.ErrFull, err)
		}
	}
	t.replaced = append(t.replaced, t.groupOf[f.Key])
	t.setGroup(&f.Key, v.Group)
	t.keys = append(t.keys, *f.Key.Bytes())
	t.values = append(t.values, *(*rawFlow)(unsafe.Pointer(&v)))
	return nil
}

func (t *flowTable) setGroup(k *match.Key, id uint32) {
	if id != 0 {
		t.groupOf[*k] = id
	} else if len(t.groupOf) > 0 {
		delete(t.groupOf, *k)
	}
}

// freeGroups deletes groups that no flow names any more. Ids are not used again, so a
// packet that still holds one finds nothing rather than another flow's outputs.
func (t *flowTable) freeGroups() {
	for _, id := range t.stale {
		_ = t.groups.Delete(id) // already gone is as good
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
			if id, ok := t.groupOf[k]; ok {
				t.stale = append(t.stale, id)
				delete(t.groupOf, k)
			}
		}
		keys = keys[n:]
	}
	t.freeGroups()
	return nil
}

// DumpFlows implements datapath.Datapath.
func (d *Datapath) DumpFlows(fn func(*datapath.FlowInfo) bool) error {
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	var (
		info   datapath.FlowInfo
		group  bpfGroup
		now    = monotonic()
		failed error
	)
	err := d.table.each(func(k *match.Key, f *bpfFlow) bool {
		info = datapath.FlowInfo{Key: *k, Actions: info.Actions[:0], Packets: f.Packets, Bytes: f.Bytes,
			TCPFlags: uint8(f.TcpFlags)}
		if now > f.LastUsed {
			info.Idle = time.Duration(now - f.LastUsed)
		}
		if info.Actions, failed = d.table.actions(info.Actions, f, &group); failed != nil {
			if errors.Is(failed, ebpf.ErrKeyNotExist) { // deleted or replaced meanwhile
				failed = nil
				return true
			}
			return false
		}
		return fn(&info)
	})
	return errors.Join(err, failed)
}

// actions decodes the flow's steps; group is scratch.
func (t *flowTable) actions(dst action.Physical, f *bpfFlow, group *bpfGroup) (action.Physical, error) {
	switch f.Steps {
	case 0:
	case 1:
		dst = decode(dst, &f.Step)
	default:
		raw := (*[unsafe.Sizeof(*group)]byte)(unsafe.Pointer(group))[:]
		if err := t.groups.Lookup(f.Group, raw); err != nil {
			return dst, err
		}
		for i := range group.Step[:min(int(group.Steps), maxSteps)] {
			dst = decode(dst, &group.Step[i])
		}
	}
	return dst, nil
}

// each reads the flow map bucket by bucket.
func (t *flowTable) each(fn func(*match.Key, *bpfFlow) bool) error {
	var cursor ebpf.MapBatchCursor
	size := batchSize
	keys, values := make([]rawKey, size), make([]rawFlow, size)
	for {
		n, err := t.flows.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, unix.ENOSPC) { // one bucket holds more
			size *= 2
			keys, values = make([]rawKey, size), make([]rawFlow, size)
			continue
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("dump flows: %w", err)
		}
		for i := range n {
			if !fn((*match.Key)(unsafe.Pointer(&keys[i])), (*bpfFlow)(unsafe.Pointer(&values[i]))) {
				return nil
			}
		}
		if err != nil {
			return nil // the end
		}
	}
}

// adopt learns which groups the flows of an earlier agent use, and frees the others.
func (t *flowTable) adopt() error {
	used := map[uint32]bool{}
	err := t.each(func(k *match.Key, f *bpfFlow) bool {
		if f.Steps > 1 {
			t.groupOf[*k] = f.Group
			used[f.Group] = true
			t.nextGroup = max(t.nextGroup, f.Group)
		}
		return true
	})
	if err != nil {
		return err
	}
	var id uint32
	raw := make([]byte, unsafe.Sizeof(bpfGroup{}))
	for it := t.groups.Iterate(); it.Next(&id, &raw); {
		t.nextGroup = max(t.nextGroup, id)
		if !used[id] {
			t.stale = append(t.stale, id)
		}
	}
	t.freeGroups()
	return nil
}

// monotonic is the clock that the kernel stamps flows with.
func monotonic() uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts) // cannot fail for this clock
	return uint64(ts.Nano())
}
