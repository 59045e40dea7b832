package ebpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Mend implements datapath.Mender. What others can take away is what has a name: the bpffs, the pins in it, and what is attached to
// interfaces. The maps and programs themselves live as long as this process, and are pinned and attached anew.
func (d *Datapath) Mend() (mended []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return nil, datapath.ErrClosed
	}
	if d.beside {
		return nil, nil // what is attached and pinned is the predecessor's
	}
	home, err := d.mendHome()
	if err != nil {
		return nil, err
	}
	pins, err := d.mendPins()
	mended = append(home, pins...)
	for _, p := range d.ports {
		again, failed := d.mendPort(p)
		mended = append(mended, again...)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("port %d (%s): %w", p.No, p.name, failed))
		}
	}
	return mended, err
}

// mendHome makes the directory of the pins again, and takes its lock, if it is not the one that is locked. Another process that has come to
// have it is left alone: it has the ports by now.
func (d *Datapath) mendHome() (mended []string, err error) {
	mine, err := d.lock.Stat()
	if err != nil {
		return nil, err
	}
	if now, err := os.Stat(d.opts.PinPath); err == nil && os.SameFile(mine, now) {
		return nil, nil
	}
	if err := makePinPath(d.opts.PinPath); err != nil {
		return nil, err
	}
	lock, err := lockPinPath(d.opts)
	if err != nil {
		return nil, err
	}
	d.lock.Close()
	d.lock = lock
	return []string{"the directory of pins " + d.opts.PinPath}, nil
}

// mendPins pins again what is not pinned any more. The settings come last: an Open that finds them finds everything.
func (d *Datapath) mendPins() (mended []string, err error) {
	dir := mapDir(d.opts.PinPath, layoutVersion)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, x := range []struct {
		name string
		m    *ebpf.Map
	}{
		{bpfMapCredits, d.maps.Credits}, {bpfMapExecTunnels, d.maps.ExecTunnels}, {bpfMapFlows, d.maps.Flows}, {bpfMapInterfaces, d.maps.Interfaces},
		{bpfMapPorts, d.maps.Ports}, {bpfMapRates, d.maps.Rates}, {bpfMapRings, d.maps.Rings}, {bpfMapStats, d.maps.Stats},
		{bpfMapTunnelKeys, d.maps.TunnelKeys}, {bpfMapWideSteps, d.maps.WideSteps}, {bpfMapConfig, d.maps.Config},
	} {
		path := filepath.Join(dir, x.name)
		if x.name == bpfMapConfig {
			path = filepath.Join(d.opts.PinPath, x.name)
		}
		if there(path) {
			continue
		}
		again, err := x.m.Clone() // it does not take itself for pinned
		if err != nil {
			return mended, err
		}
		err = again.Pin(path)
		again.Close()
		if err != nil {
			return mended, fmt.Errorf("pin of map %s: %w", x.name, err)
		}
		mended = append(mended, "the pin of map "+x.name)
	}
	return mended, nil
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// mendPort attaches again what is attached no more, and pins links again. The caller holds mu.
func (d *Datapath) mendPort(p *port) (mended []string, err error) {
	l, err := netlink.LinkByIndex(int(p.Ifindex))
	if err != nil {
		return nil, ignoreGone(err) // whoever follows the interfaces deletes the port
	}
	lost := false
	for i, dir := range []direction{ingress, egress} {
		if i == 1 && p.Class != uint8(datapath.Tunnel) {
			continue
		}
		ok := false
		if p.links[i] != nil {
			again, err := d.mendLink(p, i, dir)
			if err != nil {
				return mended, err
			}
			if again {
				mended = append(mended, fmt.Sprintf("the pin of the %s link of %s", dir.name, p.name))
			}
			ok = p.links[i] != nil
		} else if ok, err = filtered(l, dir); err != nil {
			return mended, err
		}
		if !ok {
			lost = true
			mended = append(mended, fmt.Sprintf("the %s program of %s", dir.name, p.name))
		}
	}
	if !lost {
		return mended, nil
	}
	p.close() // plug opens what is pinned
	return mended, d.plug(p)
}

// mendLink pins a link again that is not pinned any more. One that somebody has detached is closed, and nil from then on.
func (d *Datapath) mendLink(p *port, i int, dir direction) (mended bool, err error) {
	l, pin := p.links[i], d.linkPin(p.No, dir)
	info, err := l.Info()
	if err != nil {
		return false, err
	}
	if x := info.TCX(); x != nil && x.Ifindex != p.Ifindex {
		p.links[i] = nil
		return false, errors.Join(l.Close(), ignoreNotExist(os.Remove(pin)))
	}
	if there(pin) {
		return false, nil
	}
	fd, err := unix.FcntlInt(uintptr(l.(interface{ FD() int }).FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	again, err := link.NewFromFD(fd) // it does not take itself for pinned
	if err != nil {
		unix.Close(fd)
		return false, err
	}
	defer again.Close()
	return true, again.Pin(pin)
}

// filtered reports whether our filter is on the interface.
func filtered(l netlink.Link, dir direction) (bool, error) {
	fs, err := netlink.FilterList(l, dir.parent)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // there is no qdisc
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("filters of %s: %w", l.Attrs().Name, err)
	}
	name := filter(l.Attrs().Index, dir).Name
	for _, f := range fs {
		b, ok := f.(*netlink.BpfFilter)
		if ok && b.Attrs().Priority == filterPrio && (b.Name == name || b.Name == "") {
			return true, nil
		}
	}
	return false, nil
}
