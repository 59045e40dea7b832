// Package admission takes tokens in the kernel, in front of a socket: each message needs one from the socket's cell or
// from the root's, or it is thrown away before it is queued, and counted. It is for a datapath that is not ours, whose
// misses come by socket. Needs what package ebpf needs: Linux 5.12, CAP_BPF and CAP_NET_ADMIN.
package admission

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Cells are token cells in memory that is shared with the kernel. Safe for concurrent use, but for Close.
type Cells struct {
	spec  *ebpf.CollectionSpec
	table *ebpf.Map
	mem   []bpfCell // stays mapped: holders of a cell must not fault
}

// New makes cells numbered 1 to n, and the root's.
func New(n int) (*Cells, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("remove memlock limit: %w", err)
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	ms := spec.Maps[bpfMapCells]
	ms.MaxEntries = uint32(n + 1)
	c := &Cells{spec: spec}
	if c.table, err = ebpf.NewMap(ms); err != nil {
		return nil, fmt.Errorf("token cells: %w", err)
	}
	mem, err := unix.Mmap(c.table.FD(), 0, (n+1)*int(unsafe.Sizeof(bpfCell{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("map token cells into memory: %w", err)
	}
	c.mem = unsafe.Slice((*bpfCell)(unsafe.Pointer(unsafe.SliceData(mem))), n+1)
	return c, nil
}

// Guard makes the messages of a socket need tokens of cell no, which starts from zero. It ends with the socket.
func (c *Cells) Guard(socket int, no uint32) error {
	atomic.StoreInt64(&c.mem[no].Tokens, 0)
	atomic.StoreUint64(&c.mem[no].Refused, 0)
	spec := c.spec.Copy()
	if err := spec.Variables[bpfVarSlot].Set(no); err != nil {
		return err
	}
	var p bpfPrograms
	if err := spec.LoadAndAssign(&p, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{bpfMapCells: c.table}}); err != nil {
		return fmt.Errorf("load the filter of cell %d: %w", no, err)
	}
	defer p.Close()
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, p.Admit.FD()); err != nil {
		return fmt.Errorf("attach the filter of cell %d: %w", no, err)
	}
	return nil
}

// Tokens is a cell; 0: the root's.
func (c *Cells) Tokens(no uint32) *int64 { return &c.mem[no].Tokens }

// Refused is how many messages of a cell's socket found no token.
func (c *Cells) Refused(no uint32) uint64 { return atomic.LoadUint64(&c.mem[no].Refused) }

// Close lets go of the cells. Sockets that are guarded stay so.
func (c *Cells) Close() { c.table.Close() }
