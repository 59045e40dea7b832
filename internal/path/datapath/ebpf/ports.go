package ebpf

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Bits of bpfPort.Flags; bpf/viaduct.h.
const (
	portPeer uint8 = 1 << iota
	portClsact
	portTC
	portEgressLimit
	portIngressLimit
)

// port is a port with what is attached to it.
type port struct {
	bpfPort
	name  string // as last seen
	mtu   int
	links [2]link.Link // ingress, egress; nil with clsact
}

func (p *port) close() {
	for _, l := range p.links {
		if l != nil {
			l.Close()
		}
	}
	p.links = [2]link.Link{}
}

func (d *Datapath) slot(no uint32) uint32 { return no & (d.settings.Slots - 1) }

// ifindex of the port, 0 when it does not exist. Safe without locks.
func (d *Datapath) ifindex(no uint32) int {
	if o := d.outputs[d.slot(no)].Load(); no != 0 && uint32(o>>32) == no {
		return int(uint32(o))
	}
	return 0
}

func (d *Datapath) describe(p *port) datapath.Port {
	return datapath.Port{No: p.No, Interface: p.name, IfIndex: int(p.Ifindex), Class: datapath.Class(p.Class), MTU: p.mtu,
		Credit: &d.credits[d.slot(p.No)]}
}

// AddPort implements datapath.Datapath.
func (d *Datapath) AddPort(iface string, class datapath.Class) (datapath.Port, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return datapath.Port{}, datapath.ErrClosed
	}
	l, err := netlink.LinkByName(iface)
	if err != nil {
		var notFound netlink.LinkNotFoundError
		if errors.As(err, &notFound) {
			err = datapath.ErrNoInterface
		}
		return datapath.Port{}, fmt.Errorf("port %s: %w", iface, err)
	}
	for _, p := range d.ports {
		if int(p.Ifindex) == l.Attrs().Index && p.Class == uint8(class) {
			p.name, p.mtu = iface, l.Attrs().MTU
			return d.describe(p), d.findPeer(p, l)
		} else if int(p.Ifindex) == l.Attrs().Index {
			return datapath.Port{}, fmt.Errorf("port %s: %w: it is a port of class %s", iface, datapath.ErrBusy, datapath.Class(p.Class))
		}
	}
	if err := checkFree(l, ingress); err != nil {
		return datapath.Port{}, fmt.Errorf("port %s: %w", iface, err)
	}
	if class == datapath.Tunnel {
		if err := checkFree(l, egress); err != nil {
			return datapath.Port{}, fmt.Errorf("port %s: %w", iface, err)
		}
	}
	no, err := d.newNumber()
	if err != nil {
		return datapath.Port{}, fmt.Errorf("port %s: %w", iface, err)
	}
	p := &port{bpfPort: bpfPort{No: no, Ifindex: uint32(l.Attrs().Index), Class: uint8(class)}, name: iface, mtu: l.Attrs().MTU}
	err = d.install(p)
	if err == nil {
		err = d.findPeer(p, l)
	}
	if err != nil {
		return datapath.Port{}, fmt.Errorf("port %s: %w", iface, errors.Join(err, d.remove(p)))
	}
	d.ports[no] = p
	return d.describe(p), nil
}

// newNumber counts on, past the slots that are taken, so that no number comes back soon.
func (d *Datapath) newNumber() (uint32, error) {
	if len(d.ports) == int(d.settings.Slots)-1 {
		return 0, fmt.Errorf("all %d ports are taken", len(d.ports))
	}
	no := d.settings.NextNo
	for no == 0 || d.slot(no) == 0 || d.outputs[d.slot(no)].Load() != 0 {
		no++
	}
	d.settings.NextNo = no + 1
	return no, d.writeSettings()
}

// install writes the port's entries and attaches to its interface. The entry comes first: it
// says what a later Open has to repair.
func (d *Datapath) install(p *port) error {
	slot := d.slot(p.No)
	cpus, err := d.zeroStats(slot)
	if err != nil {
		return fmt.Errorf("counters on %d CPUs: %w", cpus, err)
	}
	atomic.StoreInt64(&d.credits[slot], htb.Closed)
	if err := d.maps.Ports.Put(slot, &p.bpfPort); err != nil {
		return err
	}
	if err := d.maps.Interfaces.Put(p.Ifindex, p.No); err != nil {
		return err
	}
	return d.plug(p)
}

// SetRates implements datapath.Datapath. The buckets come before the flags that have the kernel look at them.
func (d *Datapath) SetRates(no uint32, r datapath.Rates) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	p, ok := d.ports[no]
	if !ok {
		return fmt.Errorf("port %d: %w", no, datapath.ErrNoPort)
	}
	flags := p.Flags &^ (portEgressLimit | portIngressLimit)
	for i, x := range []struct {
		rate datapath.Rate
		flag uint8
	}{{r.Egress, portEgressLimit}, {r.Ingress, portIngressLimit}} {
		var v bpfRate
		if x.rate.BitsPerSecond != 0 {
			const ps, ns = 1e12, 1e9
			v.PsPerByte = max(8*ps/x.rate.BitsPerSecond, 1)
			v.BurstNs = uint64(float64(x.rate.BurstBits) / float64(x.rate.BitsPerSecond) * ns)
			flags |= x.flag
		}
		if err := d.maps.Rates.Put(d.slot(no)*2+uint32(i), &v); err != nil {
			return fmt.Errorf("port %d: %w", no, err)
		}
	}
	if flags == p.Flags {
		return nil
	}
	p.Flags = flags
	return d.maps.Ports.Put(d.slot(no), &p.bpfPort)
}

func (d *Datapath) zeroStats(slot uint32) (int, error) {
	var all []bpfPortStats
	if err := d.maps.Stats.Lookup(slot, &all); err != nil {
		return 0, err
	}
	clear(all)
	return len(all), d.maps.Stats.Put(slot, all)
}

// plug attaches the programs, or updates what is attached.
func (d *Datapath) plug(p *port) (err error) {
	flags := p.Flags
	if p.links[0], err = d.attach(&p.bpfPort, ingress, d.progs.ViaductIngress); err != nil {
		return err
	}
	if p.Class == uint8(datapath.Tunnel) {
		if p.links[1], err = d.attach(&p.bpfPort, egress, d.progs.ViaductTunnelEgress); err != nil {
			return err
		}
	}
	if p.Flags != flags {
		if err := d.maps.Ports.Put(d.slot(p.No), &p.bpfPort); err != nil {
			return err
		}
	}
	d.outputs[d.slot(p.No)].Store(uint64(p.No)<<32 | uint64(p.Ifindex))
	return nil
}

// wait opens what is attached, but leaves it alone until TakeOver.
func (d *Datapath) wait(p *port) error {
	for i, dir := range []direction{ingress, egress} {
		l, err := link.LoadPinnedLink(d.linkPin(p.No, dir), nil)
		if err == nil {
			p.links[i] = l
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	d.outputs[d.slot(p.No)].Store(uint64(p.No)<<32 | uint64(p.Ifindex))
	return nil
}

// DelPort implements datapath.Datapath.
func (d *Datapath) DelPort(no uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	p, ok := d.ports[no]
	if !ok {
		return fmt.Errorf("port %d: %w", no, datapath.ErrNoPort)
	}
	delete(d.ports, no)
	if err := d.remove(p); err != nil {
		return fmt.Errorf("port %d: %w", no, err)
	}
	return nil
}

// remove undoes install, as far as it came.
func (d *Datapath) remove(p *port) error {
	slot := d.slot(p.No)
	d.outputs[slot].Store(0)
	var err error
	for i, dir := range []direction{ingress, egress} {
		if p.links[i] != nil {
			err = errors.Join(err, ignoreNotExist(os.Remove(d.linkPin(p.No, dir))), detachLink(p.links[i]))
		}
	}
	if p.Flags&portTC != 0 {
		err = errors.Join(err, detachTC(&p.bpfPort))
	}
	_ = d.maps.Interfaces.Delete(p.Ifindex) // absent when install failed before
	err = errors.Join(err, d.maps.Ports.Put(slot, &bpfPort{}))
	atomic.StoreInt64(&d.credits[slot], 0)
	return err
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// adoptPorts takes over the ports of an earlier agent. Those whose interface has gone are
// removed.
func (d *Datapath) adoptPorts() error {
	for slot := uint32(1); slot < d.settings.Slots; slot++ {
		p := &port{}
		if err := d.maps.Ports.Lookup(slot, &p.bpfPort); err != nil {
			return fmt.Errorf("read ports: %w", err)
		}
		if p.No == 0 {
			continue
		}
		l, err := netlink.LinkByIndex(int(p.Ifindex))
		if err != nil {
			if ignoreGone(err) != nil {
				return err
			}
			for _, dir := range []direction{ingress, egress} {
				if err := ignoreNotExist(os.Remove(d.linkPin(p.No, dir))); err != nil {
					return err
				}
			}
			if err := d.remove(p); err != nil {
				return err
			}
			continue
		}
		p.name, p.mtu = l.Attrs().Name, l.Attrs().MTU
		if err := d.maps.Interfaces.Put(p.Ifindex, p.No); err != nil {
			return err
		}
		d.ports[p.No] = p
		plug := d.plug
		if d.beside {
			plug = d.wait
		}
		if err := errors.Join(plug(p), d.findPeer(p, l)); err != nil {
			return fmt.Errorf("adopt port %d (%s): %w", p.No, p.name, err)
		}
	}
	return nil
}

// findPeer notes where the interface's peer is: it may have moved to another namespace, or its MAC
// may have changed. What is noted is used by the kernel's short cut only.
func (d *Datapath) findPeer(p *port, l netlink.Link) error {
	now := p.bpfPort
	now.Flags &^= portPeer
	now.PeerMac = [6]byte{}
	if mac, ok := peerElsewhere(l); ok {
		now.Flags |= portPeer
		now.PeerMac = mac
	}
	if now == p.bpfPort {
		return nil
	}
	p.bpfPort = now
	return d.maps.Ports.Put(d.slot(p.No), &p.bpfPort)
}

// Ports implements datapath.Datapath, by number. Names are as the kernel has them now.
func (d *Datapath) Ports() ([]datapath.Port, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return nil, datapath.ErrClosed
	}
	ps := make([]datapath.Port, 0, len(d.ports))
	for _, p := range d.ports {
		if l, err := netlink.LinkByIndex(int(p.Ifindex)); err == nil {
			p.name, p.mtu = l.Attrs().Name, l.Attrs().MTU
		}
		ps = append(ps, d.describe(p))
	}
	slices.SortFunc(ps, func(a, b datapath.Port) int { return cmp.Compare(a.No, b.No) })
	return ps, nil
}

// Stats implements datapath.Datapath.
func (d *Datapath) Stats(no uint32) (datapath.PortStats, error) {
	if d.closed.Load() {
		return datapath.PortStats{}, datapath.ErrClosed
	}
	if d.ifindex(no) == 0 {
		return datapath.PortStats{}, fmt.Errorf("port %d: %w", no, datapath.ErrNoPort)
	}
	return d.stats(d.slot(no))
}

func (d *Datapath) stats(slot uint32) (s datapath.PortStats, err error) {
	var all []bpfPortStats
	if err := d.maps.Stats.Lookup(slot, &all); err != nil {
		return s, err
	}
	for i := range all {
		c := &all[i]
		s.RxPackets += c.RxPackets
		s.RxBytes += c.RxBytes
		s.TxPackets += c.TxPackets
		s.TxBytes += c.TxBytes
		s.Admitted += c.Admitted
		for r, n := range c.Drops {
			s.Drops[r] += n
		}
	}
	return s, nil
}
