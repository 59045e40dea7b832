package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Tunnel is how other hosts are reached.
type Tunnel struct {
	Device string // name of the VXLAN device
	Port   int    // of UDP
}

// DefaultTunnelDevice is the name of the VXLAN device.
const DefaultTunnelDevice = "viaduct-vxlan"

// tunnelMTU is the device's: the underlay's says what fits, and what does not is the overlay's to know.
const tunnelMTU = 65485

// ensure makes the device, or takes over the one that is there: it is never made anew, since packets are on it.
func (t *Tunnel) ensure() error {
	want := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: t.Device, MTU: tunnelMTU}, FlowBased: true, Port: t.Port, Learning: false}
	have, err := netlink.LinkByName(t.Device)
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
		if err := netlink.LinkAdd(want); err != nil {
			return fmt.Errorf("make VXLAN device %s on UDP port %d: %w", t.Device, t.Port, err)
		}
		have, err = netlink.LinkByName(t.Device)
	}
	if err != nil {
		return fmt.Errorf("VXLAN device %s: %w", t.Device, err)
	}
	if v, ok := have.(*netlink.Vxlan); !ok || !v.FlowBased || v.Port != t.Port {
		return fmt.Errorf("interface %s is no VXLAN device of ours (external, UDP port %d): delete it, or name another device", t.Device, t.Port)
	}
	return netlink.LinkSetUp(have)
}

// remove deletes the device if it is one that ensure would take.
func (t *Tunnel) remove() error {
	have, err := netlink.LinkByName(t.Device)
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
		return nil
	}
	if v, ok := have.(*netlink.Vxlan); err != nil || !ok || !v.FlowBased {
		return err
	}
	return netlink.LinkDel(have)
}

// reachable reports whether any other host shares a tunnel zone with this one.
func reachable(s *view.Snapshot) bool {
	for _, h := range s.Hosts {
		if h.Tunnel != (match.Addr{}) {
			return true
		}
	}
	return false
}

// tunnelOnce opens the tunnel when there is anybody to reach. done: nothing is left to be done for now.
func (a *Agent) tunnelOnce() (done bool) {
	a.tunnelMu.Lock()
	defer a.tunnelMu.Unlock()
	s := a.mirror.Snapshot()
	if _, open := a.ports.getTunnel(); open || !reachable(s) {
		return true
	}
	t := Tunnel{a.cfg.TunnelDevice, a.boot.Settings.TunnelPort}
	err := a.makeTunnel(&t)
	if err == nil {
		err = a.ports.openTunnel(t.Device, s)
	}
	if errors.Is(err, datapath.ErrTunnel) {
		a.tunnelOff.Do(func() { a.log.Warn("other hosts cannot be reached", "error", err) })
		return true
	}
	if err != nil {
		a.log.Warn("no tunnel: other hosts cannot be reached", slog.Any("error", err), slog.Duration("retry_in", tunnelRetry))
		return false
	}
	a.log.Info("tunnel", "device", t.Device, "udp_port", t.Port)
	return true
}

const tunnelRetry = 2 * time.Second

// tunnel opens the tunnel as soon as another host can be reached.
func (a *Agent) tunnel(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.hostsChanged:
		case <-again:
		}
		if again = nil; !a.tunnelOnce() {
			again = time.After(tunnelRetry)
		}
	}
}

// openTunnel makes the device a port by which workers reach other hosts.
func (p *ports) openTunnel(device string, s *view.Snapshot) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tunnel != nil {
		return nil
	}
	if _, err := p.dp.TunnelKeys(); err != nil {
		return err // no tunnels in this datapath, most likely
	}
	dp, err := p.dp.AddPort(device, datapath.Tunnel)
	if err != nil {
		return fmt.Errorf("interface %s: %w", device, err)
	}
	if err := p.remember(dp.No); err != nil {
		return fmt.Errorf("interface %s: %w", device, err)
	}
	a := &admission{policy: p.policy}
	p.tunnel = &boundPort{Port: dp, admission: a}
	for id, key := range p.expected {
		p.lead(id, key, dp.No)
	}
	var changed []tag.Tag
	for id := range s.Hosts {
		changed = append(changed, tag.Tag{Kind: tag.Host, ID: id})
	}
	p.publish(p.table.Load().WithTunnel(dp.No), func() { a.begin(htb.Tunnel, dp) }, changed...)
	return nil
}

// getTunnel returns the port by which other hosts are reached.
func (p *ports) getTunnel() (datapath.Port, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tunnel == nil {
		return datapath.Port{}, false
	}
	return p.tunnel.Port, true
}

// sweepKeys takes back the keys of ports that an earlier agent had and this one has not. The caller holds mu.
func (p *ports) sweepKeys() error {
	keys, err := p.dp.TunnelKeys()
	if errors.Is(err, datapath.ErrTunnel) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, b := range p.bound {
		delete(keys, b.key)
	}
	for _, key := range p.expected {
		delete(keys, key)
	}
	for key := range keys {
		if err := p.dp.SetTunnelKey(key, 0); err != nil {
			return err
		}
	}
	return nil
}

// How long other hosts have to say what they know: askAtMost to hear the question, askSettle to have answered it.
const (
	askAtMost = time.Second
	askPoll   = 5 * time.Millisecond
	askSettle = 100 * time.Millisecond
)

// ask has the other hosts tell what concerns the connections of this one: whose answers enter here. An earlier agent knew it, and
// the flows that it has left depend on it.
func (a *Agent) ask(ctx context.Context) error {
	if _, open := a.ports.getTunnel(); !open || !a.heir || a.foreign { // what is foreign brings no answer here
		return nil
	}
	for _, w := range a.workers {
		w.Do(w.Listen)
	}
	w := a.workers[0]
	hosts := slices.SortedFunc(maps.Values(a.mirror.Snapshot().Hosts), func(x, y *view.Host) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	for _, h := range hosts {
		if h.Tunnel != (match.Addr{}) {
			w.Do(func() { w.Hello(h.Tunnel) })
		}
	}
	left := -1
	for end := a.clock.Now() + int64(askAtMost); left != 0 && a.clock.Now() < end; {
		if err := a.sleep(ctx, askPoll); err != nil {
			return err
		}
		if err := a.call(w, ctx, func() { left = w.Unacknowledged() }); err != nil {
			return err
		}
	}
	if left == 0 {
		if err := a.sleep(ctx, askSettle); err != nil {
			return err
		}
	}
	if left != 0 {
		a.log.Warn("not all other hosts have said what they know of connections: those of which the flows have gone may break", "hosts", left)
	}
	return nil
}

// tellHost has all workers tell a host that has begun anew what concerns it. It is called on a worker's goroutine.
func (a *Agent) tellHost(to match.Addr) {
	for _, w := range a.workers {
		w.Do(func() { w.TellHost(to) })
	}
}
