// Package fake is a datapath in memory: deterministic, without a kernel, and with
// faults on demand. Only tests, the lab and scale runs import it.
package fake

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// MaxOutputs is how many outputs a flow can hold.
const MaxOutputs = 32

// maxFrame is the longest frame that a miss carries: an Ethernet header with a tag, and 64 KB.
const maxFrame = packet.EthLen + packet.VLANLen + 1<<16

// Faults are what goes wrong on demand. Nil functions and zeros: nothing does. The
// functions run under the datapath's lock, so they must not call it.
type Faults struct {
	AddPort  func(iface string) error
	PutFlow  func(i int, f *datapath.Flow) error // i: its index in the batch
	DelFlows func(keys []match.Key) error
	Dump     func() error
	Execute  func(e *datapath.Exec) error
	MaxFlows int // PutFlows fails with ErrFull when there are as many
}

// Counts say how often each method was called and what came of it.
type Counts struct {
	AddPort, DelPort            int
	PutFlows, FlowsPut          int
	DelFlows, FlowsDeleted      int
	Dumps                       int
	Execute, Executed, ExecFail int
	MissesRead                  int
}

// Sent is a frame that left the datapath.
type Sent struct {
	Interface string
	Port      uint32
	Tunnel    bool       // out of a tunnel port, by a Tunnel action
	Key       uint32     // VNI, for a Tunnel
	Peer      match.Addr // for a Tunnel
	Frame     []byte
}

// Datapath implements datapath.Datapath on interfaces that exist only here. It is safe for
// concurrent use. A frame has run its whole course when Inject or Execute returns.
type Datapath struct {
	clock   clock.Clock
	root    int64
	workers []*queue

	mu        sync.Mutex
	ifaces    map[string]*iface
	lastIndex int
	ports     map[uint32]*port
	lastNo    uint32
	keys      map[uint32]uint32 // tunnel key -> port
	flows     map[match.Key]*flow
	order     []*flow // as installed, deleted ones too until compacted
	rw        packet.Rewriter
	sink      func(port uint32, tunnel *action.Action, frame []byte) // of the running rewrite
	onSend    func(Sent)
	pending   []Sent // sent under the lock, for onSend
	faults    Faults
	counts    Counts
	closed    bool
}

type iface struct {
	name  string
	index int
	mtu   int
	port  *port
	out   []Sent
}

type port struct {
	datapath.Port
	stats           datapath.PortStats
	egress, ingress bucket
}

// bucket is a datapath.Rate with the time, in ns, at which it is full again.
type bucket struct {
	datapath.Rate
	full int64
}

// exceeds takes the bits of so many bytes, unless they are not there.
func (b *bucket) exceeds(bytes uint64, now int64) bool {
	if b.BitsPerSecond == 0 {
		return false
	}
	ns := func(bits uint64) int64 { return int64(float64(bits) / float64(b.BitsPerSecond) * 1e9) }
	full := max(b.full, now) + ns(8*bytes)
	if full-now > ns(b.BurstBits) {
		return true
	}
	b.full = full
	return false
}

var _ datapath.Datapath = (*Datapath)(nil)

// New makes a datapath with so many workers and no interfaces.
func New(c clock.Clock, workers int) *Datapath {
	d := &Datapath{clock: c, ifaces: map[string]*iface{}, ports: map[uint32]*port{}, keys: map[uint32]uint32{}, flows: map[match.Key]*flow{}}
	d.rw.Emit = func(port uint32, tunnel *action.Action, frame []byte) { d.sink(port, tunnel, frame) }
	for range workers {
		d.workers = append(d.workers, &queue{wake: make(chan struct{}, 1), stop: make(chan struct{}, 1)})
	}
	return d
}

// SetFaults replaces the faults.
func (d *Datapath) SetFaults(f Faults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = f
}

// Counts is a copy of the counters.
func (d *Datapath) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

// AddInterface makes an interface to which AddPort can attach.
func (d *Datapath) AddInterface(name string, mtu int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lastIndex++
	d.ifaces[name] = &iface{name: name, index: d.lastIndex, mtu: mtu}
}

// DelInterface removes an interface. Its port is the caller's to delete, and reaches nobody until then.
func (d *Datapath) DelInterface(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.ifaces, name)
}

// AddPort implements datapath.Datapath.
func (d *Datapath) AddPort(name string, class datapath.Class) (datapath.Port, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts.AddPort++
	if d.closed {
		return datapath.Port{}, datapath.ErrClosed
	}
	if d.faults.AddPort != nil {
		if err := d.faults.AddPort(name); err != nil {
			return datapath.Port{}, err
		}
	}
	i := d.ifaces[name]
	if i == nil {
		return datapath.Port{}, fmt.Errorf("%s: %w", name, datapath.ErrNoInterface)
	}
	if i.port == nil {
		d.lastNo++
		i.port = &port{Port: datapath.Port{No: d.lastNo, Interface: name, IfIndex: i.index, Class: class, MTU: i.mtu, Credit: new(int64)}}
		*i.port.Credit = htb.Closed
		d.ports[d.lastNo] = i.port
	}
	return i.port.Port, nil
}

// DelPort implements datapath.Datapath.
func (d *Datapath) DelPort(no uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts.DelPort++
	p, err := d.port(no)
	if err != nil {
		return err
	}
	delete(d.ports, no)
	if i := d.ifaces[p.Interface]; i != nil && i.port == p {
		i.port = nil
	}
	return nil
}

// Ports implements datapath.Datapath; the order is that of the numbers.
func (d *Datapath) Ports() (ps []datapath.Port, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, datapath.ErrClosed
	}
	for _, p := range d.ports {
		ps = append(ps, p.Port)
	}
	slices.SortFunc(ps, func(a, b datapath.Port) int { return int(a.No) - int(b.No) })
	return ps, nil
}

// Stats implements datapath.Datapath.
func (d *Datapath) Stats(no uint32) (datapath.PortStats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, err := d.port(no)
	if err != nil {
		return datapath.PortStats{}, err
	}
	return p.stats, nil
}

func (d *Datapath) port(no uint32) (*port, error) {
	if d.closed {
		return nil, datapath.ErrClosed
	}
	if p := d.ports[no]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("port %d: %w", no, datapath.ErrNoPort)
}

// SetRates implements datapath.Datapath.
func (d *Datapath) SetRates(no uint32, r datapath.Rates) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, err := d.port(no)
	if err != nil {
		return err
	}
	p.egress, p.ingress = bucket{Rate: r.Egress}, bucket{Rate: r.Ingress}
	return nil
}

// SetTunnelKey implements datapath.Datapath.
func (d *Datapath) SetTunnelKey(key, port uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return datapath.ErrClosed
	}
	if port == 0 {
		delete(d.keys, key)
	} else {
		d.keys[key] = port
	}
	return nil
}

// TunnelKeys implements datapath.Datapath.
func (d *Datapath) TunnelKeys() (map[uint32]uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, datapath.ErrClosed
	}
	return maps.Clone(d.keys), nil
}

// RootCredit implements datapath.Datapath.
func (d *Datapath) RootCredit() *int64 { return &d.root }

// Close implements datapath.Datapath: frames keep flowing, no call works any more.
func (d *Datapath) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	for _, w := range d.workers {
		w.close()
	}
	return nil
}

// Reopen is what the next process finds when one that had the datapath open was killed: ports, flows and keys; the misses that nobody
// has read are gone, and no cell has tokens.
func (d *Datapath) Reopen() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = false
	atomic.StoreInt64(&d.root, 0)
	for _, p := range d.ports {
		atomic.StoreInt64(p.Credit, 0)
	}
	for _, q := range d.workers {
		q.reopen()
	}
}

func (p *port) drop(r drop.Reason) { p.stats.Drops[r]++ }
