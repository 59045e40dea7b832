package ovs

import (
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ebpf/admission"
)

// Options of a datapath. The zero value of each field is its default.
type Options struct {
	Name         string // of the datapath and its local interface; default "viaduct"
	Workers      int    // miss queues; default 1, at most 64
	SocketBuffer int    // bytes of misses that wait in the kernel for each port; default 4 MiB with tokens in the kernel, 64 KiB without

	// NoBPF takes tokens when misses are read, as where the kernel loads no BPF programs: docs/ovs.md says what that costs.
	NoBPF bool
}

const (
	maxWorkers = 64
	// What waits is bounded by the port's tokens, all of which must fit, or else by the buffer alone.
	guardedBuffer, openBuffer = 4 << 20, 64 << 10
	classShift                = 28
)

func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = "viaduct"
	}
	if o.Workers == 0 {
		o.Workers = 1
	}
	if o.Workers < 1 || o.Workers > maxWorkers || o.SocketBuffer < 0 || len(o.Name) >= unix.IFNAMSIZ {
		return o, fmt.Errorf("datapath %q, %d workers, %d bytes: out of range", o.Name, o.Workers, o.SocketBuffer)
	}
	return o, nil
}

// Errors of Open, clear enough to be shown.
var (
	ErrNoModule = errors.New("the Open vSwitch kernel module is not there: modprobe openvswitch")
	ErrKernel   = errors.New("the Open vSwitch kernel module is too old: it has no DEC_TTL (Linux 5.7)")
)

// Datapath implements datapath.Datapath on openvswitch.ko.
type Datapath struct {
	opts    Options
	owner   int    // socket whose port id says that we are at work
	ifindex uint32 // of the local interface: names the datapath in requests
	opened  int64  // CLOCK_MONOTONIC
	created bool

	datapaths, vports, flows, packets uint16 // netlink families

	queues    []*queue
	reader    *reader
	reading   sync.Mutex       // a turn of the reader
	cells     *admission.Cells // takes tokens in the kernel; nil: the reader does, and root and the ports have cells of their own
	unguarded error            // why cells is nil
	root      *int64
	closed    atomic.Bool
	ports     atomic.Pointer[map[uint32]*port] // replaced under mu

	mu         sync.Mutex // ctl, changes of ports
	ctl        *conn
	nextNo     uint32
	tunnelKeys map[uint32]uint32 // tunnel key -> port

	table    flowTable
	senders  chan *sender // idle ones
	nsenders int
}

var _ datapath.Datapath = (*Datapath)(nil)

// Open makes the datapath, or adopts the one that is there: ports, numbers and flows stay, packets keep flowing. Tokens and
// counts of misses start from zero. It fails with datapath.ErrBusy while another process has it
// open, and when a datapath or an interface of that name is not ours; then it is left alone.
func Open(opts Options) (_ *Datapath, err error) {
	d, err := own(opts)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if d.created {
				err = errors.Join(err, d.destroy())
			}
			d.release()
			err = fmt.Errorf("datapath %s: %w", d.opts.Name, err)
		}
	}()
	if err := d.find(); errors.Is(err, unix.ENODEV) {
		if err := d.create(); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	for range d.opts.Workers {
		d.queues = append(d.queues, newQueue())
	}
	if d.table.conn, err = newConn(); err != nil {
		return nil, err
	}
	if err := d.probe(); err != nil {
		return nil, err
	}
	if err := d.openSenders(d.opts.Workers + 1); err != nil {
		return nil, err
	}
	d.openCells()
	r, err := newReader(d)
	if err != nil {
		return nil, err
	}
	d.reader = r
	go r.run()
	if err := d.adoptPorts(); err != nil {
		return nil, err
	}
	return d, d.adoptTunnelKeys()
}

// connect resolves families.
func connect(opts Options) (_ *Datapath, err error) {
	opts, err = opts.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Datapath{opts: opts, owner: -1, nextNo: 1, opened: monotonic(), tunnelKeys: map[uint32]uint32{}}
	d.ports.Store(&map[uint32]*port{})
	for name, id := range map[string]*uint16{"ovs_datapath": &d.datapaths, "ovs_vport": &d.vports, "ovs_flow": &d.flows, "ovs_packet": &d.packets} {
		f, err := netlink.GenlFamilyGet(name)
		if errors.Is(err, unix.ENOENT) {
			return nil, ErrNoModule
		}
		if err != nil {
			return nil, fmt.Errorf("netlink family %s: %w", name, err)
		}
		*id = f.ID
	}
	if d.ctl, err = newConn(); err != nil {
		return nil, err
	}
	return d, nil
}

// own is connect that makes sure that nobody else is at work under the name.
func own(opts Options) (*Datapath, error) {
	d, err := connect(opts)
	if err != nil {
		return nil, err
	}
	if d.owner, err = netlinkSocket(d.pid(portLocal, 0)); err != nil {
		d.release()
		if errors.Is(err, unix.EADDRINUSE) {
			err = datapath.ErrBusy
		}
		return nil, fmt.Errorf("datapath %s: %w", d.opts.Name, err)
	}
	return d, nil
}

// local reports whether there is an interface of the datapath's name. Without, there is no such datapath, and asking the
// module itself might load it.
func local(opts Options) bool {
	opts, err := opts.withDefaults()
	if err == nil {
		_, err = netlink.LinkByName(opts.Name)
	}
	return err == nil
}

// Exists reports whether there is a datapath of that name that an agent has made.
func Exists(opts Options) bool {
	if !local(opts) {
		return false
	}
	d, err := connect(opts)
	if err != nil {
		return false
	}
	defer d.release()
	return d.find() == nil
}

// pid is the netlink port id that a port's misses go to: above those of processes, below those that the
// kernel hands out. Port 0's marks the datapath as ours.
func (d *Datapath) pid(no uint32, class datapath.Class) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(d.opts.Name)) // never fails
	return 1<<30 | uint32(class)<<classShift | (h.Sum32()^h.Sum32()>>12)&0xfff<<16 | no
}

// find looks for the datapath and checks that it is ours. ENODEV: there is none.
func (d *Datapath) find() error {
	at := d.ctl.request(d.datapaths, cmdGet, unix.NLM_F_ACK, 0)
	d.ctl.msg.text(dpName, d.opts.Name)
	err := d.ctl.call(at, func(r *reply) (err error) {
		_, d.ifindex, _, err = r.payload()
		return err
	})
	if err != nil {
		return err
	}
	local, err := d.vport(portLocal)
	if err != nil {
		return fmt.Errorf("its local port: %w", err)
	}
	if local.pid != d.pid(portLocal, 0) {
		return fmt.Errorf("%w: a datapath of that name is somebody else's", datapath.ErrBusy)
	}
	return nil
}

// gone reports whether the datapath with its local interface has been deleted: Open vSwitch's daemon does so when it makes its
// first bridge. Safe without locks until release.
func (d *Datapath) gone() bool {
	var request struct { // struct ifreq
		name  [unix.IFNAMSIZ]byte
		index uint32
		_     [20]byte
	}
	request.index = d.ifindex
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.owner), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&request)))
	return errno == unix.ENODEV
}

func (d *Datapath) create() error {
	at := d.ctl.request(d.datapaths, cmdNew, unix.NLM_F_ACK, 0)
	d.ctl.msg.text(dpName, d.opts.Name)
	d.ctl.msg.u32(dpUpcallPID, d.pid(portLocal, 0))
	d.ctl.msg.u32(dpUserFeatures, featureUnaligned|featureVportPIDs)
	err := d.ctl.call(at, nil)
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: an interface of that name exists", datapath.ErrBusy)
	case err != nil:
		return fmt.Errorf("make datapath: %w", err)
	}
	d.created = true
	return d.find()
}

// destroy deletes the datapath with its ports and flows.
func (d *Datapath) destroy() error {
	return d.ctl.call(d.ctl.request(d.datapaths, cmdDel, unix.NLM_F_ACK, d.ifindex), nil)
}

// probe checks that the kernel has all that flows need: it puts a flow that no packet matches.
func (d *Datapath) probe() error {
	k := match.Key{InPort: maxPorts - 1, EthType: packet.EthTypeIPv4, Src: match.Addr{10: 0xff, 11: 0xff}, Dst: match.Addr{10: 0xff, 11: 0xff}}
	_, err := d.PutFlows([]datapath.Flow{{Key: k, Actions: action.Physical{{Op: action.CheckLen, Value: 1500}, {Op: action.DecTTL},
		{Op: action.Output, Port: k.InPort}}}})
	if errors.Is(err, unix.EINVAL) {
		return ErrKernel
	}
	if err != nil {
		return err
	}
	return d.DelFlows([]match.Key{k})
}

// openCells has the kernel take tokens, where it can.
func (d *Datapath) openCells() {
	d.unguarded = errors.New("switched off")
	if !d.opts.NoBPF {
		d.cells, d.unguarded = admission.New(maxPorts)
	}
	buffer := guardedBuffer
	if d.unguarded == nil {
		d.root = d.cells.Tokens(0)
	} else {
		d.root, d.cells, buffer = new(int64), nil, openBuffer
	}
	if d.opts.SocketBuffer == 0 {
		d.opts.SocketBuffer = buffer
	}
}

// Unguarded says why tokens are not taken in the kernel, before a miss is queued, but when it is read. Nil: they are.
func (d *Datapath) Unguarded() error { return d.unguarded }

// RootCredit implements datapath.Datapath.
func (d *Datapath) RootCredit() *int64 { return d.root }

// Close implements datapath.Datapath.
func (d *Datapath) Close() error {
	if d.closed.Swap(true) {
		return datapath.ErrClosed
	}
	d.release()
	return nil
}

// release waits for those at work and closes what is open; what is in the kernel stays.
func (d *Datapath) release() {
	d.closed.Store(true)
	d.closeSenders()
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reader != nil {
		d.reader.close()
	}
	for _, q := range d.queues {
		q.close(datapath.ErrClosed)
	}
	for _, p := range *d.ports.Load() {
		unix.Close(p.fd)
	}
	d.ports.Store(&map[uint32]*port{})
	for _, c := range []*conn{d.ctl, d.table.conn} {
		if c != nil {
			c.close()
		}
	}
	if d.cells != nil {
		d.cells.Close()
	}
	if d.owner >= 0 {
		unix.Close(d.owner)
	}
}

// Cleanup deletes the datapath of that name with its ports and flows, when it is ours. None is no error. It fails
// with datapath.ErrBusy while a process has it open.
func Cleanup(opts Options) error {
	if !local(opts) {
		return nil
	}
	d, err := own(opts)
	if errors.Is(err, ErrNoModule) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.release()
	err = d.find()
	if err == nil {
		err = d.destroy()
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("datapath %s: %w", d.opts.Name, err)
	}
	return nil
}
