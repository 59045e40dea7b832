package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Sizes in front of a frame on the ring, and of the longest record (MISS_MAX).
const (
	missHeader = int(unsafe.Sizeof(bpfMiss{}))
	missMax    = 67584
	macsLen    = 12 // a VLAN tag follows the two MACs
	tagLen     = 4
)

// queue is one worker's ring. It is read in place, and mapped once: the agent's memory is counted by what it maps, and to map it takes time, too.
type queue struct {
	ring *ebpf.Map
	size int // of the ring

	wait *waiter // of who reads
	poll lookout // of who reads

	leftMu sync.Mutex
	left   []*datapath.Miss // from rings that this one has replaced: they come first; guarded by leftMu
	some   atomic.Bool      // there are some left

	mapped   sync.Mutex // close unmaps what workers, and who asks for what waits, are looking at
	mem      []byte     // the ring (ringMemory); guarded by mapped; nil: closed
	progress *progress  // guarded by mapped
}

func newQueue(size int) (*queue, error) {
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Name: "misses", Type: ebpf.RingBuf, MaxEntries: uint32(size)})
	if err != nil {
		return nil, fmt.Errorf("miss ring of %d bytes: %w", size, err)
	}
	return queueOf(ring, 0)
}

// queueOf reads a ring, which is closed with it, from where it was last read: but for what was not done, the last misses, most at most.
func queueOf(ring *ebpf.Map, most int) (_ *queue, err error) {
	q := &queue{ring: ring, size: int(ring.MaxEntries())}
	defer func() {
		if err != nil {
			q.close()
		}
	}()
	if q.mem, err = unix.Mmap(ring.FD(), 0, ringMemory(q.size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map a ring into memory: %w", err)
	}
	if q.progress, err = newProgress(ring); err != nil {
		return nil, err
	}
	q.progress.rewind(q.mem, q.size, most)
	q.wait, err = newWaiter(ring.FD())
	return q, err
}

func (q *queue) close() {
	if q.wait != nil {
		q.wait.close()
	}
	q.ring.Close()
	q.mapped.Lock()
	defer q.mapped.Unlock()
	if q.mem != nil {
		_ = unix.Munmap(q.mem)
	}
	if q.progress != nil {
		_ = unix.Munmap(q.progress.mem)
	}
	q.mem, q.progress = nil, nil
}

// empty reports whether there is nothing to be read now, without a system call.
func (q *queue) empty() bool {
	q.mapped.Lock()
	defer q.mapped.Unlock()
	if q.mem == nil {
		return false // reading tells
	}
	written := (*uint64)(unsafe.Pointer(&q.mem[os.Getpagesize()]))
	return atomic.LoadUint64(written) == atomic.LoadUint64(q.progress.word(readAt))
}

// ringSize is a power of two with room for as many of the longest records as there are tokens,
// so that the ring cannot overflow, up to 64 MiB.
func ringSize(tokens int) int {
	size := 1 << 18
	for size < tokens*(missMax+8) && size < 64<<20 {
		size *= 2
	}
	return size
}

// Wake implements datapath.Datapath.
func (d *Datapath) Wake(worker int) { d.queues[worker].wait.wake() }

// ReadMisses implements datapath.Datapath.
func (d *Datapath) ReadMisses(worker int, ms []*datapath.Miss, timeout time.Duration) (int, error) {
	if d.closed.Load() {
		return 0, datapath.ErrClosed
	}
	q := d.queues[worker]
	if q.some.Load() {
		return q.takeLeft(ms), nil
	}
	if d.opts.Poll <= 0 || timeout <= 0 {
		return q.read(worker, ms, timeout)
	}
	start := time.Now()
	q.lookOut(start, min(q.poll.time, timeout))
	n, err := q.read(worker, ms, max(timeout-time.Since(start), 0))
	q.poll.waited(time.Since(start), d.opts.Poll)
	return n, err
}

// read is ReadMisses without a look out. What is there already costs no system call.
func (q *queue) read(worker int, ms []*datapath.Miss, timeout time.Duration) (n int, err error) {
	var end time.Time
	for woken := false; ; {
		if n, err = q.take(ms); err != nil && !errors.Is(err, datapath.ErrClosed) {
			err = fmt.Errorf("worker %d: %w", worker, err)
		}
		if n > 0 || err != nil || woken || timeout < pollUnit {
			return n, err
		}
		if now := time.Now(); end.IsZero() {
			end = now.Add(timeout)
		} else {
			timeout = end.Sub(now)
		}
		if woken, err = q.wait.wait(timeout); err != nil {
			return 0, err
		}
	}
}

// take copies what is on the ring, as far as it is whole, and gives its room back to the kernel.
func (q *queue) take(ms []*datapath.Miss) (n int, err error) {
	q.mapped.Lock()
	defer q.mapped.Unlock()
	if q.mem == nil {
		return 0, datapath.ErrClosed
	}
	page := os.Getpagesize()
	data, position := q.mem[2*page:], q.progress.word(readAt)
	first := atomic.LoadUint64(position)
	at, written := first, atomic.LoadUint64((*uint64)(unsafe.Pointer(&q.mem[page])))
	for n < len(ms) && at < written && err == nil {
		rec := data[at&uint64(q.size-1):]
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&rec[0])))
		if head&ringBusy != 0 {
			break // it is being written: the kernel tells when it is whole, or has told
		}
		length := int(head &^ ringDiscard)
		if length > missMax {
			err = fmt.Errorf("miss record of %d bytes", length)
			break
		}
		if head&ringDiscard == 0 {
			if err = decodeMiss(rec[ringHeader:ringHeader+length], ms[n]); err == nil {
				n++
			}
		}
		at += uint64(length+ringHeader+7) &^ 7
	}
	if at != first { // for all of them at once: writers look at it
		atomic.StoreUint64(position, at)
	}
	return n, err
}

func (q *queue) takeLeft(ms []*datapath.Miss) int {
	q.leftMu.Lock()
	defer q.leftMu.Unlock()
	n := min(len(ms), len(q.left))
	for i, m := range q.left[:n] {
		*ms[i], *m = *m, datapath.Miss{}
	}
	q.left = q.left[n:]
	q.some.Store(len(q.left) > 0)
	return n
}

// decodeMiss copies a record into m; a tag that was in the skb's metadata goes back into the frame.
func decodeMiss(raw []byte, m *datapath.Miss) error {
	if len(raw) < missHeader {
		return fmt.Errorf("miss record of %d bytes", len(raw))
	}
	h := (*bpfMiss)(unsafe.Pointer(unsafe.SliceData(raw)))
	if int(h.Len) > len(raw)-missHeader || h.Len < macsLen {
		return fmt.Errorf("miss record of %d bytes with a frame of %d", len(raw), h.Len)
	}
	frame := raw[missHeader : missHeader+int(h.Len)]
	m.Key = *(*match.Key)(unsafe.Pointer(&h.Key))
	m.Reason, m.Lent = datapath.MissReason(h.Reason), h.Lent != 0
	m.GSO = packet.GSO{Size: h.GsoSize, Segs: h.GsoSegs}
	m.Time = int64(h.Time)
	m.Frame = m.Frame[:0]
	if h.VlanTpid != 0 {
		var tag [tagLen]byte
		binary.BigEndian.PutUint16(tag[:2], swap16(h.VlanTpid))
		binary.BigEndian.PutUint16(tag[2:], h.VlanTci)
		m.Frame = append(append(m.Frame, frame[:macsLen]...), tag[:]...)
		frame = frame[macsLen:]
	}
	m.Frame = append(m.Frame, frame...)
	return nil
}
