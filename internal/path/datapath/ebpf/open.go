package ebpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Options of a datapath. The zero value of each field is its default.
type Options struct {
	Name     string // of the datapath on this host; default "viaduct"
	PinPath  string // directory in bpffs; default /sys/fs/bpf/viaduct/<Name>
	MaxFlows int    // default 200000; an adopted table that is larger stays so
	MaxPorts int    // rounded up to a power of two; default 1024; adopted ones keep their number
	Workers  int    // miss queues; default 1, at most 64
	Tokens   int    // most misses in flight at once: sizes the rings; default 256
	// Poll is for how long ReadMisses may look out for a miss before it sleeps; 0: it sleeps at once.
	Poll time.Duration

	clsact    bool                    // attach as on kernels without tcx, for tests
	interrupt func(step string) error // fails Open between two steps of a migration, for tests
}

const maxWorkers = 64

func (o Options) withDefaults() (Options, error) {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	if o.Name == "" {
		o.Name = "viaduct"
	}
	if o.PinPath == "" {
		o.PinPath = filepath.Join(bpffs, "viaduct", o.Name)
	}
	def(&o.MaxFlows, 200000)
	def(&o.MaxPorts, 1024)
	def(&o.Workers, 1)
	def(&o.Tokens, 256)
	if o.Workers < 1 || o.Workers > maxWorkers {
		return o, fmt.Errorf("%d workers: must be 1 to %d", o.Workers, maxWorkers)
	}
	if o.MaxFlows < 1 || o.MaxPorts < 1 || o.MaxPorts > 1<<16 || o.Tokens < 1 {
		return o, fmt.Errorf("MaxFlows %d, MaxPorts %d, Tokens %d: out of range", o.MaxFlows, o.MaxPorts, o.Tokens)
	}
	slots := 2 // one is the root's
	for slots <= o.MaxPorts {
		slots *= 2
	}
	o.MaxPorts = slots - 1
	return o, nil
}

// Datapath implements datapath.Datapath in the kernel.
type Datapath struct {
	opts   Options
	lock   *os.File
	maps   bpfMaps
	progs  bpfPrograms
	table  flowTable
	queues []*queue
	closed atomic.Bool

	senders  chan *sender // idle ones
	nsenders int

	// Memory shared with the kernel. It stays mapped after Close: holders of a
	// credit cell must not fault.
	credits []int64
	tunnels []bpfExecTunnel

	// slot -> port number<<32 | ifindex, for Execute
	outputs []atomic.Uint64

	before *predecessor // with another layout, that Open has found; nil: none
	// beside: the predecessor's programs switch packets by its flows until TakeOver. heirMu guards it, and the predecessor's flows from being
	// closed while they are read.
	heirMu sync.RWMutex
	beside bool

	mu       sync.Mutex // ports and settings
	settings bpfSettings
	ports    map[uint32]*port
}

var _ datapath.Datapath = (*Datapath)(nil)

// The kernel's structs are what Go takes them for.
var (
	_ [match.KeySize]byte        = [unsafe.Sizeof(bpfFlowKey{})]byte{}
	_ [drop.KernelReasons]uint64 = bpfPortStats{}.Drops
)

// Open loads the datapath, or adopts the one that is pinned under PinPath: its ports, their numbers and its
// flows stay, packets keep flowing, the program is replaced. Tokens that are in the cells stay there, and
// misses that have come meanwhile wait to be read. Maps of another layout are converted; when they
// cannot be, the earlier programs go on until TakeOver. It fails with datapath.ErrBusy while another process has it open.
func Open(opts Options) (_ *Datapath, err error) {
	opts, err = opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := checkHost(); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("remove memlock limit: %w", err)
	}
	if err := makePinPath(opts.PinPath); err != nil {
		return nil, err
	}
	d := &Datapath{opts: opts, ports: map[uint32]*port{}}
	defer func() {
		if err != nil {
			d.closeSenders()
			d.release()
			err = fmt.Errorf("datapath %s: %w", opts.Name, err)
		}
	}()
	if d.lock, err = lockPinPath(opts); err != nil {
		return nil, err
	}
	if err := d.load(); err != nil {
		return nil, err
	}
	d.table = flowTable{flows: d.maps.Flows, steps: d.maps.WideSteps, wide: map[match.Key]run{}}
	if err := d.mapMemory(); err != nil {
		return nil, err
	}
	if err := d.makeQueues(); err != nil {
		return nil, err
	}
	d.senders = make(chan *sender, opts.Workers)
	for i := range opts.Workers {
		s, err := newSender(d, i)
		if err != nil {
			return nil, err
		}
		d.senders <- s
		d.nsenders++
	}
	if err := d.table.adopt(); err != nil {
		return nil, err
	}
	if d.before != nil {
		if err := errors.Join(d.before.fill(d), d.interrupted("filled")); err != nil {
			return nil, err
		}
	}
	if err := d.adoptPorts(); err != nil {
		return nil, err
	}
	if d.beside {
		return d, nil
	}
	if err := d.commit(); err != nil {
		return nil, err
	}
	return d, nil
}

// load makes the maps and programs, or takes over pinned maps.
func (d *Datapath) load() error {
	spec, err := loadBpf()
	if err != nil {
		return err
	}
	slots := uint32(d.opts.MaxPorts + 1)
	spec.Maps[bpfMapFlows].MaxEntries = uint32(d.opts.MaxFlows)
	spec.Maps[bpfMapWideSteps].MaxEntries = uint32(max(4096, d.opts.MaxFlows/4))
	config, version, err := pinnedConfig(d.opts)
	if err != nil {
		return err
	}
	defer func() { config.Close() }() // nil is closed, too
	dir := mapDir(d.opts.PinPath, layoutVersion)
	switch version {
	case 0:
		err = errors.Join(removePins(d.opts.PinPath), os.MkdirAll(dir, 0o700)) // of an Open that did not come to its end
		d.settings = bpfSettings{Slots: slots, NextNo: 1}
	case layoutVersion:
		if err = config.Lookup(uint32(0), &d.settings); err == nil {
			err = growTables(spec, dir)
		}
	default:
		if d.before, err = newPredecessor(d.opts, config, version, spec); err != nil {
			return err
		}
		err = freshDir(d.opts.PinPath)
		d.settings, d.beside = d.before.settings, !d.before.known
	}
	if err != nil {
		return err
	}
	setSlots(spec, d.settings.Slots)
	if version == layoutVersion {
		if err := keepSizes(spec, dir); err != nil {
			return err
		}
	} else {
		config.Close()
		if config, err = ebpf.NewMap(spec.Maps[bpfMapConfig]); err != nil {
			return err
		}
		if version == 0 {
			if err := config.Pin(filepath.Join(d.opts.PinPath, bpfMapConfig)); err != nil {
				return err
			}
		}
	}
	if err := spec.Variables[bpfVarSlotMask].Set(d.settings.Slots - 1); err != nil {
		return err
	}
	for name, m := range spec.Maps {
		if name[0] != '.' && name != bpfMapConfig { // not the program's constants
			m.Pinning = ebpf.PinByName
		}
	}
	var objs struct {
		bpfMaps
		bpfPrograms
	}
	err = spec.LoadAndAssign(&objs, &ebpf.CollectionOptions{
		Maps: ebpf.MapOptions{PinPath: dir}, MapReplacements: map[string]*ebpf.Map{bpfMapConfig: config},
	})
	d.maps, d.progs = objs.bpfMaps, objs.bpfPrograms
	return err
}

// setSlots sizes what there is per port.
func setSlots(spec *ebpf.CollectionSpec, slots uint32) {
	spec.Maps[bpfMapRates].MaxEntries = 2 * slots // egress and ingress
	for _, name := range []string{bpfMapInterfaces, bpfMapPorts, bpfMapCredits, bpfMapStats, bpfMapTunnelKeys} {
		spec.Maps[name].MaxEntries = slots
	}
}

// pinnedConfig opens the settings of a complete datapath, and reads the version of its layout: 0 when there is none.
func pinnedConfig(o Options) (*ebpf.Map, uint32, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(o.PinPath, bpfMapConfig), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("pinned settings: %w", err)
	}
	b := make([]byte, m.ValueSize())
	if err := m.Lookup(uint32(0), b); err != nil {
		m.Close()
		return nil, 0, fmt.Errorf("pinned settings: %w", err)
	}
	return m, versionOf(b), nil
}

// keepSizes takes the sizes of pinned maps over into spec.
func keepSizes(spec *ebpf.CollectionSpec, dir string) error {
	for name, ms := range spec.Maps {
		if name[0] == '.' || name == bpfMapConfig {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if errors.Is(err, os.ErrNotExist) { // new since the agent that has pinned the others
			continue
		}
		if err != nil {
			return fmt.Errorf("pinned map %s: %w", name, err)
		}
		ms.MaxEntries = m.MaxEntries()
		m.Close()
	}
	return nil
}

func (d *Datapath) mapMemory() error {
	slots := int(d.settings.Slots)
	d.outputs = make([]atomic.Uint64, slots)
	mem, err := mmap(d.maps.Credits, slots*8)
	if err != nil {
		return err
	}
	d.credits = unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(mem))), slots)
	n := int(d.maps.ExecTunnels.MaxEntries())
	if mem, err = mmap(d.maps.ExecTunnels, n*int(unsafe.Sizeof(bpfExecTunnel{}))); err != nil {
		return err
	}
	d.tunnels = unsafe.Slice((*bpfExecTunnel)(unsafe.Pointer(unsafe.SliceData(mem))), n)
	return nil
}

func mmap(m *ebpf.Map, size int) ([]byte, error) {
	mem, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", m, err)
	}
	return mem, nil
}

func (d *Datapath) writeSettings() error {
	if err := d.maps.Config.Put(uint32(0), &d.settings); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// Workers implements datapath.Datapath.
func (d *Datapath) Workers() int { return d.opts.Workers }

// FlowRoom is how many flows the kernel's table can hold: Options.MaxFlows, or what an earlier agent wanted.
func (d *Datapath) FlowRoom() int { return int(d.maps.Flows.MaxEntries()) }

// RootCredit implements datapath.Datapath.
func (d *Datapath) RootCredit() *int64 { return &d.credits[0] }

// Close implements datapath.Datapath.
func (d *Datapath) Close() error {
	if d.closed.Swap(true) {
		return datapath.ErrClosed
	}
	d.closeSenders()
	d.table.mu.Lock() // wait for writers
	defer d.table.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.release()
	return nil
}

// closeSenders waits for those that are at work. A later Execute finds the channel closed.
func (d *Datapath) closeSenders() {
	for range d.nsenders {
		s := <-d.senders
		unix.Close(s.sock.fd)
	}
	if d.senders != nil {
		close(d.senders)
	}
}

// release closes what is open; what is pinned stays.
func (d *Datapath) release() {
	for _, q := range d.queues {
		q.close()
	}
	for _, p := range d.ports {
		p.close()
	}
	if d.before != nil {
		d.before.close()
	}
	d.maps.Close()
	d.progs.Close()
	if d.lock != nil {
		d.lock.Close()
	}
}
