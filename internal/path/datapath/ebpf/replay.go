package ebpf

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A miss that was read is in the agent's memory alone, and goes with it. But its record is still on the ring, which the kernel uses again only once it
// has come around. So how far the misses are done is written beside the reader's position, into the part of its page that nobody uses, and the
// next agent reads again from there. A miss that was done just before the agent ended may be executed twice: networks may duplicate, but not lose.

// progress is the reader's page of a ring, as the kernel shows it to whoever reads.
type progress struct {
	mem   []byte
	noted uint64 // what was written last: of the goroutine that reads
}

// Where what is in the page: the kernel's (struct bpf_ringbuf), and ours.
const (
	readAt  = 0
	doneAt  = 64
	magicAt = 72

	progressMagic = 0x76696164756374 // what is at doneAt counts
)

func newProgress(ring *ebpf.Map) (*progress, error) {
	mem, err := unix.Mmap(ring.FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the position of a ring into memory: %w", err)
	}
	return &progress{mem: mem, noted: ^uint64(0)}, nil
}

func (p *progress) word(at int) *uint64 { return (*uint64)(unsafe.Pointer(&p.mem[at])) }

// note says that all that was read is done.
func (p *progress) note() {
	read := atomic.LoadUint64(p.word(readAt))
	if read == p.noted {
		return
	}
	p.noted = read
	atomic.StoreUint64(p.word(doneAt), read)
	atomic.StoreUint64(p.word(magicAt), progressMagic)
}

// rewind has what was read and not done read again: no more than most misses, the last ones, as there are not more under way. mem is the whole ring.
func (p *progress) rewind(mem []byte, size, most int) {
	if atomic.LoadUint64(p.word(magicAt)) != progressMagic {
		return // read by an agent that does not write it
	}
	page := os.Getpagesize()
	done, read := atomic.LoadUint64(p.word(doneAt)), atomic.LoadUint64(p.word(readAt))
	written := atomic.LoadUint64((*uint64)(unsafe.Pointer(&mem[page])))
	if done >= read || written-done > uint64(size)/2 { // what comes now does not come around to it
		return
	}
	var starts []uint64
	for at := done; at < read; {
		starts = append(starts, at)
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&mem[2*page+int(at&uint64(size-1))])))
		at += uint64(head&^(ringBusy|ringDiscard)+ringHeader+7) &^ 7
		if at > read {
			return // not ours: records end where reading has
		}
	}
	if n := len(starts); n > most {
		starts = starts[n-most:]
	}
	if len(starts) > 0 {
		atomic.StoreUint64(p.word(readAt), starts[0])
	}
}

// Settle implements datapath.Settler.
func (d *Datapath) Settle(worker int) {
	q := d.queues[worker]
	q.mapped.Lock()
	defer q.mapped.Unlock()
	if q.progress != nil {
		q.progress.note()
	}
}
