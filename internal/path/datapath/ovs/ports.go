package ovs

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// port is a vport and the socket that its misses come to.
type port struct {
	no      uint32
	class   datapath.Class
	name    string // as last seen
	ifindex int
	mtu     int
	credit  *int64
	fd      int

	// before is what the interface had counted when it became a port. For an adopted one
	// that is not known: it counts since the interface exists.
	before counters

	lost            uint32 // messages that had no room, as far as their tokens were given back; the reader's lock is held
	admitted        atomic.Uint64
	drops           [drop.KernelReasons]atomic.Uint64
	executed, bytes atomic.Uint64 // sent out without a flow
}

func (p *port) describe() datapath.Port {
	return datapath.Port{No: p.no, Interface: p.name, IfIndex: p.ifindex, Class: p.class, MTU: p.mtu, Credit: p.credit}
}

// counters of an interface.
type counters struct{ rx, tx, rxBytes, txBytes uint64 }

// vport is one that the kernel describes.
type vport struct {
	no, typ, pid uint32
	ifindex      int
	counters
}

func parseVport(r *reply) (v vport, err error) {
	_, _, b, err := r.payload()
	if err != nil {
		return v, err
	}
	var no, typ bool
	v.no, no = findU32(b, vportPortNo)
	v.typ, typ = findU32(b, vportType)
	v.pid, _ = findU32(b, vportUpcallPID)
	if i, ok := findU32(b, vportIfindex); ok {
		v.ifindex = int(i)
	}
	if !no || !typ {
		return v, errors.New("netlink: vport without number or type")
	}
	if s := find(b, vportStats); len(s) >= 32 {
		v.counters = counters{rx: ne.Uint64(s), tx: ne.Uint64(s[8:]), rxBytes: ne.Uint64(s[16:]), txBytes: ne.Uint64(s[24:])}
	}
	return v, nil
}

// port returns a port by number, nil when there is none. Safe without locks.
func (d *Datapath) port(no uint32) *port { return (*d.ports.Load())[no] }

// change publishes the table of ports after fn has changed it. The caller holds mu.
func (d *Datapath) change(fn func(ports map[uint32]*port)) {
	ports := maps.Clone(*d.ports.Load())
	fn(ports)
	d.ports.Store(&ports)
}

// AddPort implements datapath.Datapath.
func (d *Datapath) AddPort(iface string, class datapath.Class) (datapath.Port, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return datapath.Port{}, datapath.ErrClosed
	}
	p, err := d.addPort(iface, class)
	if err != nil {
		return datapath.Port{}, fmt.Errorf("port %s: %w", iface, err)
	}
	return p.describe(), nil
}

func (d *Datapath) addPort(iface string, class datapath.Class) (*port, error) {
	l, err := netlink.LinkByName(iface)
	if err != nil {
		if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
			err = datapath.ErrNoInterface
		}
		return nil, err
	}
	for _, p := range *d.ports.Load() {
		if p.ifindex != l.Attrs().Index {
			continue
		}
		if p.class != class {
			return nil, fmt.Errorf("%w: it is a port of class %s", datapath.ErrBusy, p.class)
		}
		if _, err := d.vport(p.no); err == nil {
			p.name, p.mtu = iface, l.Attrs().MTU
			return p, nil
		}
		d.forget(p) // somebody took it out of the datapath
		break
	}
	p := &port{class: class, name: iface, ifindex: l.Attrs().Index, mtu: l.Attrs().MTU}
	if p.no, err = d.newNumber(); err != nil {
		return nil, err
	}
	if err := d.openSocket(p); err != nil {
		return nil, err
	}
	atomic.StoreInt64(p.credit, htb.Closed)
	if err := d.newVport(p); err != nil {
		unix.Close(p.fd)
		return nil, err
	}
	if v, err := d.vport(p.no); err == nil {
		p.before = v.counters
	}
	if err := d.serve(p); err != nil {
		return nil, errors.Join(err, d.delVport(p.no))
	}
	if class == datapath.Tunnel {
		if err := d.allTunnelFlows(p.no, true); err != nil {
			d.forget(p)
			return nil, errors.Join(err, d.delVport(p.no))
		}
	}
	return p, nil
}

// newNumber counts on, so that no number comes back soon.
func (d *Datapath) newNumber() (uint32, error) {
	for range maxPorts {
		no := d.nextNo
		if d.nextNo++; d.nextNo == maxPorts {
			d.nextNo = 1
		}
		if d.port(no) == nil {
			return no, nil
		}
	}
	return 0, errors.New("all port numbers are taken")
}

// openSocket opens what the port's misses come to, and has them need a token there where the kernel can do that.
func (d *Datapath) openSocket(p *port) (err error) {
	pid := d.pid(p.no, p.class)
	if p.fd, err = netlinkSocket(pid); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("%w: %w", datapath.ErrBusy, err)
		}
		return err
	}
	err = errors.Join(
		unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, d.opts.SocketBuffer),
		unix.SetsockoptInt(p.fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1))
	p.credit = new(int64)
	if d.cells != nil && err == nil {
		p.credit = d.cells.Tokens(p.no)
		err = d.cells.Guard(p.fd, p.no)
	}
	if err != nil {
		unix.Close(p.fd)
	}
	return err
}

// serve makes the port known and its misses read.
func (d *Datapath) serve(p *port) error {
	d.change(func(ports map[uint32]*port) { ports[p.no] = p })
	if err := d.reader.watch(p.fd, p.no); err != nil {
		d.forget(p)
		return err
	}
	return nil
}

// forget is the opposite of serve and openSocket. What waits on the socket holds tokens, so it is read.
func (d *Datapath) forget(p *port) {
	d.change(func(ports map[uint32]*port) { delete(ports, p.no) })
	d.reading.Lock() // the reader may be at it
	defer d.reading.Unlock()
	if d.cells != nil {
		for d.reader.turn(p) {
		}
		d.giveBackLost(p)
	}
	unix.Close(p.fd)
}

func (d *Datapath) newVport(p *port) error {
	at := d.ctl.request(d.vports, cmdNew, unix.NLM_F_ACK, d.ifindex)
	d.ctl.msg.u32(vportPortNo, p.no)
	d.ctl.msg.u32(vportType, vportNetdev)
	d.ctl.msg.text(vportName, p.name)
	d.ctl.msg.u32(vportUpcallPID, d.pid(p.no, p.class))
	err := d.ctl.call(at, nil)
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: a bridge or another datapath has it: %w", datapath.ErrBusy, err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %w", datapath.ErrNoInterface, err)
	case err != nil:
		return fmt.Errorf("new vport: %w", err)
	}
	return nil
}

func (d *Datapath) delVport(no uint32) error {
	at := d.ctl.request(d.vports, cmdDel, unix.NLM_F_ACK, d.ifindex)
	d.ctl.msg.u32(vportPortNo, no)
	if err := d.ctl.call(at, nil); err != nil && !errors.Is(err, unix.ENODEV) { // its interface has vanished
		return fmt.Errorf("delete vport: %w", err)
	}
	return nil
}

// vport asks the kernel for one.
func (d *Datapath) vport(no uint32) (v vport, err error) {
	at := d.ctl.request(d.vports, cmdGet, unix.NLM_F_ACK, d.ifindex)
	d.ctl.msg.u32(vportPortNo, no)
	err = d.ctl.call(at, func(r *reply) (err error) {
		v, err = parseVport(r)
		return err
	})
	return v, err
}

// DelPort implements datapath.Datapath.
func (d *Datapath) DelPort(no uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	p := d.port(no)
	if p == nil {
		return fmt.Errorf("port %d: %w", no, datapath.ErrNoPort)
	}
	if err := d.delVport(no); err != nil {
		return fmt.Errorf("port %d: %w", no, err)
	}
	d.forget(p)
	if p.class == datapath.Tunnel {
		return d.allTunnelFlows(no, false)
	}
	return nil
}

// Ports implements datapath.Datapath, by number. Names are as the kernel has them now. One whose interface has vanished
// is listed until it is deleted.
func (d *Datapath) Ports() ([]datapath.Port, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return nil, datapath.ErrClosed
	}
	var ps []datapath.Port
	for _, p := range *d.ports.Load() {
		if l, err := netlink.LinkByIndex(p.ifindex); err == nil {
			p.name, p.mtu = l.Attrs().Name, l.Attrs().MTU
		}
		ps = append(ps, p.describe())
	}
	slices.SortFunc(ps, func(a, b datapath.Port) int { return cmp.Compare(a.No, b.No) })
	return ps, nil
}

// Stats implements datapath.Datapath. What the kernel dropped because the port's socket was full counts
// as drop.NoCredit: it is the same refusal, given earlier. drop.FlowDrop and drop.OutputGone stay 0.
func (d *Datapath) Stats(no uint32) (s datapath.PortStats, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return s, datapath.ErrClosed
	}
	p := d.port(no)
	if p == nil {
		return s, fmt.Errorf("port %d: %w", no, datapath.ErrNoPort)
	}
	v, err := d.vport(no)
	if errors.Is(err, unix.ENODEV) {
		err = datapath.ErrNoPort
	}
	if err != nil {
		return s, fmt.Errorf("port %d: %w", no, err)
	}
	s.RxPackets, s.RxBytes = v.rx-p.before.rx, v.rxBytes-p.before.rxBytes
	s.TxPackets, s.TxBytes = less(v.tx-p.before.tx, p.executed.Load()), less(v.txBytes-p.before.txBytes, p.bytes.Load())
	s.Admitted = p.admitted.Load()
	for i := range p.drops {
		s.Drops[i] = p.drops[i].Load()
	}
	s.Drops[drop.NoCredit] += lost(p.fd)
	if d.cells != nil {
		s.Drops[drop.NoCredit] += d.cells.Refused(no)
	}
	return s, nil
}

// less subtracts what may not have been counted yet.
func less(a, b uint64) uint64 { return a - min(a, b) }

// adoptPorts takes over the vports of an earlier agent.
func (d *Datapath) adoptPorts() error {
	var found []vport
	at := d.ctl.request(d.vports, cmdGet, unix.NLM_F_DUMP, d.ifindex)
	_, err := d.ctl.dump(at, func(r *reply) error {
		v, err := parseVport(r)
		if err == nil && v.no != portLocal {
			found = append(found, v)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list vports: %w", err)
	}
	for _, v := range found {
		if err := d.adoptPort(&v); err != nil {
			return fmt.Errorf("adopt port %d: %w", v.no, err)
		}
	}
	return nil
}

func (d *Datapath) adoptPort(v *vport) error {
	l, err := netlink.LinkByIndex(v.ifindex)
	class := datapath.Class(v.pid >> classShift & 3)
	if err != nil || v.typ != vportNetdev || d.pid(v.no, class) != v.pid { // about to vanish, or not made by us
		return d.delVport(v.no)
	}
	p := &port{no: v.no, class: class, name: l.Attrs().Name, ifindex: v.ifindex, mtu: l.Attrs().MTU}
	if err := d.openSocket(p); err != nil {
		return err
	}
	d.nextNo = max(d.nextNo, v.no%(maxPorts-1)+1)
	return d.serve(p)
}
