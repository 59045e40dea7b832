package ebpf

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// makeQueues takes over the rings of an earlier agent, with the misses that have come while there was none: nobody else knows of them. Rings
// of another number or size are replaced, and what is on them goes in front.
func (d *Datapath) makeQueues() error {
	size := ringSize(d.opts.Tokens)
	old, err := openRings(d.maps.Rings)
	if err != nil {
		return err
	}
	keep := len(old) == d.opts.Workers && d.settings.Workers == uint32(d.opts.Workers)
	for _, r := range old {
		keep = keep && r.MaxEntries() == uint32(size)
	}
	d.settings.Version, d.settings.Workers = bpfLayoutLAYOUT_VERSION, uint32(d.opts.Workers)
	if keep {
		for i, r := range old {
			q, err := queueOf(r, d.opts.Tokens)
			if err != nil {
				return errors.Join(err, closeAll(old[i+1:]))
			}
			d.queues = append(d.queues, q)
		}
		return d.writeSettings()
	}
	for i := range d.opts.Workers {
		q, err := newQueue(size)
		if err == nil {
			d.queues = append(d.queues, q)
			err = d.maps.Rings.Put(uint32(i), q.ring)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("ring of worker %d: %w", i, err), closeAll(old))
		}
	}
	if err := d.writeSettings(); err != nil {
		return errors.Join(err, closeAll(old))
	}
	// Replacing and deleting wait until no program has the earlier ones any more.
	for i := d.opts.Workers; i < len(old); i++ {
		if err := d.maps.Rings.Delete(uint32(i)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return errors.Join(fmt.Errorf("ring of worker %d: %w", i, err), closeAll(old))
		}
	}
	return d.drain(old)
}

// openRings opens those that are in the map.
func openRings(rings *ebpf.Map) (rs []*ebpf.Map, err error) {
	for i := range uint32(maxWorkers) {
		var id ebpf.MapID
		if err = rings.Lookup(i, &id); errors.Is(err, ebpf.ErrKeyNotExist) {
			return rs, nil
		}
		var r *ebpf.Map
		if err == nil {
			r, err = ebpf.NewMapFromID(id)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("ring of worker %d: %w", i, err), closeAll(rs))
		}
		rs = append(rs, r)
	}
	return rs, nil
}

func closeAll(ms []*ebpf.Map) (err error) {
	for _, m := range ms {
		err = errors.Join(err, m.Close())
	}
	return err
}

// drain reads what is on rings that no program has, closes them, and leaves it to the workers in whose rings it would be now.
func (d *Datapath) drain(rings []*ebpf.Map) error {
	for i, r := range rings {
		q, err := queueOf(r, d.opts.Tokens)
		if err != nil {
			return errors.Join(err, closeAll(rings[i+1:]))
		}
		for {
			m := new(datapath.Miss)
			var n int
			if n, err = q.take([]*datapath.Miss{m}); n == 0 {
				break
			}
			to := d.queues[int(m.Key.ConnectionHash())%len(d.queues)]
			to.left = append(to.left, m)
			to.some.Store(true)
		}
		q.close()
		if err != nil {
			return errors.Join(err, closeAll(rings[i+1:]))
		}
	}
	return nil
}

// Waiting implements datapath.Waiter.
func (d *Datapath) Waiting(no uint32) (int, error) {
	if d.closed.Load() {
		return 0, datapath.ErrClosed
	}
	n := 0
	count := func(port uint32) {
		if no == 0 || port == no {
			n++
		}
	}
	for _, q := range d.queues {
		q.eachWaiting(count)
	}
	return n, nil
}

// eachWaiting tells of the ports of the misses that have not been read.
func (q *queue) eachWaiting(fn func(port uint32)) {
	q.leftMu.Lock()
	defer q.leftMu.Unlock()
	for _, m := range q.left {
		fn(m.Key.InPort)
	}
	q.mapped.Lock()
	defer q.mapped.Unlock()
	if q.mem != nil {
		eachRecord(q.mem, q.size, fn)
	}
}

// ringMemory is how much of a ring is mapped: a page with the reader's position, one with the writers', and the data, followed by as much of its
// beginning as lets a record that goes on there be read in one piece. The kernel would show all of it twice.
func ringMemory(size int) int {
	page := os.Getpagesize()
	again := (ringHeader + missMax + page - 1) / page * page
	return 2*page + size + min(size, again)
}

// The header of a record on a ring (BPF_RINGBUF_*_BIT).
const (
	ringHeader  = 8
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
)

// eachRecord tells of the ports of the records on a ring that have not been read. What is read or written meanwhile is told of or not.
func eachRecord(mem []byte, size int, fn func(port uint32)) {
	page := os.Getpagesize()
	position := func(at int) uint64 { return atomic.LoadUint64((*uint64)(unsafe.Pointer(&mem[at]))) }
	data := mem[2*page:]
	for at, end := position(0), position(page); at < end; {
		rec := data[at&uint64(size-1):]
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&rec[0])))
		n := head &^ (ringBusy | ringDiscard)
		if head&ringBusy == 0 && head&ringDiscard == 0 && int(n) >= missHeader {
			fn((*bpfMiss)(unsafe.Pointer(&rec[ringHeader])).Key.InPort)
		}
		at += uint64(n+ringHeader+7) &^ 7
	}
}
