package ebpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Our filter on a clsact qdisc.
const (
	filterPrio   = 1
	filterHandle = 1
)

// direction is one side of an interface.
type direction struct {
	name   string
	tcx    ebpf.AttachType
	parent uint32
}

var (
	ingress = direction{"ingress", ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS}
	egress  = direction{"egress", ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS}
)

// checkFree fails with ErrBusy when a program that is not ours is attached.
func checkFree(l netlink.Link, dir direction) error {
	name, ifindex := l.Attrs().Name, l.Attrs().Index
	q, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: dir.tcx})
	if err == nil && len(q.Programs) > 0 {
		return fmt.Errorf("%w: %s %s has program %s: detach it first (bpftool net show dev %s)",
			datapath.ErrBusy, name, dir.name, programName(q.Programs[0].ID), name)
	}
	filters, err := netlink.FilterList(l, dir.parent)
	if err == nil && len(filters) > 0 {
		what := filters[0].Type()
		if b, ok := filters[0].(*netlink.BpfFilter); ok {
			what += " " + b.Name
		}
		return fmt.Errorf("%w: %s %s has tc filter %s: delete it first (tc filter del dev %s %s)",
			datapath.ErrBusy, name, dir.name, what, name, dir.name)
	}
	return nil
}

func programName(id ebpf.ProgramID) string {
	s := "id " + strconv.Itoa(int(id))
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return s
	}
	defer p.Close()
	if info, err := p.Info(); err == nil {
		s = info.Name + " (" + s + ")"
	}
	return s
}

// linkPrefix begins the name of every pinned link.
const linkPrefix = "link_"

// linkPin is where the link of a port is pinned.
func (d *Datapath) linkPin(no uint32, dir direction) string {
	return filepath.Join(d.opts.PinPath, fmt.Sprintf("%s%d_%s", linkPrefix, no, dir.name))
}

// detachLink detaches and closes. A link whose last pin and holder go is detached too, but since Linux 6.12
// some time after: a port added in between would find its interface taken.
func detachLink(l link.Link) error { return errors.Join(l.Detach(), l.Close()) }

// attach puts prog on the interface. With tcx the link is returned, pinned; with clsact,
// p.Flags say so. An attachment of ours that is there already is updated in place.
func (d *Datapath) attach(p *bpfPort, dir direction, prog *ebpf.Program) (link.Link, error) {
	if p.Flags&portTC == 0 && !d.opts.clsact {
		pin := d.linkPin(p.No, dir)
		l, err := link.LoadPinnedLink(pin, nil)
		if err == nil {
			if err = l.Update(prog); err == nil {
				return l, nil
			}
			l.Close() // its interface has gone
			if err := os.Remove(pin); err != nil {
				return nil, err
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("pinned link %s: %w", pin, err)
		}
		l, err = link.AttachTCX(link.TCXOptions{Interface: int(p.Ifindex), Program: prog, Attach: dir.tcx})
		if err == nil {
			if err = l.Pin(pin); err != nil {
				l.Close()
				return nil, err
			}
			return l, nil
		}
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return nil, err
		}
	}
	p.Flags |= portTC
	return nil, attachTC(p, dir, prog)
}

func clsact(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}

func filter(ifindex int, dir direction) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: ifindex, Parent: dir.parent, Handle: filterHandle, Priority: filterPrio, Protocol: unix.ETH_P_ALL},
		Name:        "viaduct_" + dir.name, DirectAction: true,
	}
}

// attachTC replaces our filter, or adds it, with the qdisc when there is none.
func attachTC(p *bpfPort, dir direction, prog *ebpf.Program) error {
	switch err := netlink.QdiscAdd(clsact(int(p.Ifindex))); {
	case err == nil:
		p.Flags |= portClsact
	case !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("clsact qdisc: %w", err)
	}
	f := filter(int(p.Ifindex), dir)
	f.Fd = prog.FD()
	if err := netlink.FilterReplace(f); err != nil {
		return fmt.Errorf("tc filter: %w", err)
	}
	return nil
}

// detachTC removes our filters, and the qdisc when it is ours. A vanished interface has
// taken them along.
func detachTC(p *bpfPort) error {
	if _, err := netlink.LinkByIndex(int(p.Ifindex)); err != nil {
		return ignoreGone(err)
	}
	if p.Flags&portClsact != 0 {
		err := netlink.QdiscDel(clsact(int(p.Ifindex)))
		if errors.Is(err, unix.EINVAL) { // there is none: a clean-up has not come to its end
			return nil
		}
		return ignoreGone(err)
	}
	err := ignoreGone(netlink.FilterDel(filter(int(p.Ifindex), ingress)))
	if p.Class == uint8(datapath.Tunnel) {
		err = errors.Join(err, ignoreGone(netlink.FilterDel(filter(int(p.Ifindex), egress))))
	}
	return err
}

func ignoreGone(err error) error {
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
