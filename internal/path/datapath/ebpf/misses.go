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
	"github.com/cilium/ebpf/ringbuf"
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

// queue is one worker's ring.
type queue struct {
	ring   *ebpf.Map
	reader *ringbuf.Reader
	rec    ringbuf.Record

	poll lookout // of who reads

	leftMu sync.Mutex
	left   []*datapath.Miss // from rings that this one has replaced: they come first; guarded by leftMu
	some   atomic.Bool      // there are some left

	mapped   sync.Mutex // close unmaps what workers, and who asks for what waits, are looking at
	mem      []byte     // the ring; guarded by mapped; nil: closed
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
	q := &queue{ring: ring}
	defer func() {
		if err != nil {
			q.close()
		}
	}()
	// Once: mapping a ring costs milliseconds, and at its start an agent asks for the misses of each of its ports.
	page, size := os.Getpagesize(), int(ring.MaxEntries())
	if q.mem, err = unix.Mmap(ring.FD(), 0, 2*page+2*size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map a ring into memory: %w", err)
	}
	if q.progress, err = newProgress(ring); err != nil {
		return nil, err
	}
	q.progress.rewind(q.mem, size, most)
	q.reader, err = ringbuf.NewReader(ring)
	return q, err
}

func (q *queue) close() {
	if q.reader != nil {
		q.reader.Close()
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

// pollUnit is what the reader rounds times to wait down to.
const pollUnit = time.Millisecond

// Wake implements datapath.Datapath.
func (d *Datapath) Wake(worker int) { _ = d.queues[worker].reader.Flush() } // fails only when it is closed

// ReadMisses implements datapath.Datapath.
func (d *Datapath) ReadMisses(worker int, ms []*datapath.Miss, timeout time.Duration) (int, error) {
	if d.closed.Load() {
		return 0, datapath.ErrClosed
	}
	q := d.queues[worker]
	if q.some.Load() {
		return q.takeLeft(ms), nil
	}
	if timeout <= 0 && q.empty() { // a worker asks before each batch leaves
		return 0, nil
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
func (q *queue) read(worker int, ms []*datapath.Miss, timeout time.Duration) (int, error) {
	deadline := time.Now().Add(timeout)
	q.reader.SetDeadline(deadline)
	n := 0
	for n < len(ms) {
		err := q.reader.ReadInto(&q.rec)
		switch {
		case err == nil:
			if err := q.decode(ms[n]); err != nil {
				return n, err
			}
			n++
			if q.rec.Remaining == 0 {
				return n, nil // without asking the kernel once more
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			// The reader may report the last call's deadline first, and its own by up to a millisecond early,
			// which is what it counts in.
			if n > 0 || timeout < pollUnit || time.Until(deadline) < pollUnit {
				return n, nil
			}
		case errors.Is(err, ringbuf.ErrFlushed):
			return n, nil // woken
		case errors.Is(err, os.ErrClosed):
			return n, datapath.ErrClosed
		default:
			return n, fmt.Errorf("worker %d: %w", worker, err)
		}
	}
	return n, nil
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

// decode copies the record into m; a tag that was in the skb's metadata goes back into the frame.
func (q *queue) decode(m *datapath.Miss) error {
	raw := q.rec.RawSample
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
