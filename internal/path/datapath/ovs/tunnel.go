package ovs

import (
	"errors"
	"fmt"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// A tunnel key is two flows of each tunnel port, for packets that came over IPv4 and over IPv6: all that has the key goes
// to the port. The kernel keeps them, so that they work while no agent runs; keys that no tunnel
// port has are known to this process alone.

// tunnelFamilies are outer destinations of which the kernel wants one in the key, matched or not: it sees the family.
var tunnelFamilies = []struct {
	typ  uint16
	addr []byte
}{{tunIPv4Dst, []byte{127, 0, 0, 1}}, {tunIPv6Dst, []byte{15: 1}}}

// tunnelKey writes what all packets of a tunnel key have in common.
func (w keyWriter) tunnelKey(in, key uint32, family int) {
	f := tunnelFamilies[family]
	zeros := make([]byte, 16)
	at := w.m.nest(keyTunnel)
	w.exact(tunID, tunnelID(key))
	w.partly(f.typ, f.addr, zeros[:len(f.addr)])
	w.partly(tunTTL, tunnelTTL, zeros[:1])
	w.m.close(at)
	w.exact(keyInPort, ne.AppendUint32(nil, in))
	w.partly(keyEthernet, zeros[:lenEthernet], zeros[:lenEthernet])
}

// tunnelFlows puts the flows of a key at a tunnel port, or deletes them when port is 0 or the tunnel port itself. The caller holds mu.
func (d *Datapath) tunnelFlows(in, key, port uint32) error {
	if port == in {
		port = 0
	}
	for family := range tunnelFamilies {
		m := &d.ctl.msg
		cmd := uint8(cmdNew)
		if port == 0 {
			cmd = cmdDel
		}
		at := d.ctl.request(d.flows, cmd, unix.NLM_F_ACK, d.ifindex)
		n := m.nest(flowKey)
		keyWriter{m, false}.tunnelKey(in, key, family)
		m.close(n)
		if port != 0 {
			n = m.nest(flowMask)
			keyWriter{m, true}.tunnelKey(in, key, family)
			m.close(n)
			n = m.nest(flowActions)
			m.u32(actOutput, port)
			m.close(n)
		}
		if err := d.ctl.call(at, nil); err != nil && !(port == 0 && errors.Is(err, unix.ENOENT)) {
			return fmt.Errorf("tunnel key %#x: %w", key, flowError(err))
		}
	}
	return nil
}

// allTunnelFlows does so for all keys: for a tunnel port that comes, or goes.
func (d *Datapath) allTunnelFlows(in uint32, put bool) error {
	for key, port := range d.tunnelKeys {
		if !put {
			port = 0
		}
		if err := d.tunnelFlows(in, key, port); err != nil {
			return err
		}
	}
	return nil
}

// SetTunnelKey implements datapath.Datapath. What is dropped because the port does not exist is not counted.
func (d *Datapath) SetTunnelKey(key, port uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	if port >= maxPorts {
		return fmt.Errorf("tunnel key %#x: port %d: %w", key, port, datapath.ErrNoPort)
	}
	for _, p := range *d.ports.Load() {
		if p.class == datapath.Tunnel {
			if err := d.tunnelFlows(p.no, key, port); err != nil {
				return err
			}
		}
	}
	if d.tunnelKeys[key] = port; port == 0 {
		delete(d.tunnelKeys, key)
	}
	return nil
}

// TunnelKeys implements datapath.Datapath.
func (d *Datapath) TunnelKeys() (map[uint32]uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return nil, datapath.ErrClosed
	}
	return maps.Clone(d.tunnelKeys), nil
}

// adoptTunnelKeys reads those of an earlier agent back. A tunnel port may lack some: an agent can end at any time.
func (d *Datapath) adoptTunnelKeys() error {
	err := d.dumpRaw(d.ctl, func(b []byte) error {
		if _, key, port, ok := parseTunnelFlow(b); ok {
			d.tunnelKeys[key] = port
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("tunnel keys: %w", err)
	}
	for _, p := range *d.ports.Load() {
		if p.class == datapath.Tunnel {
			if err := d.allTunnelFlows(p.no, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseTunnelFlow recognises a flow that tunnelFlows has put.
func parseTunnelFlow(b []byte) (in, key, port uint32, ok bool) {
	k, mask, as := find(b, flowKey), find(b, flowMask), find(b, flowActions)
	in, ok = findU32(k, keyInPort)
	id := find(find(k, keyTunnel), tunID)
	if !ok || len(id) != 8 {
		return 0, 0, 0, false
	}
	key = parseTunnelID(id)
	for family := range tunnelFamilies {
		var want, does message
		keyWriter{&want, true}.tunnelKey(in, key, family)
		port, ok = findU32(as, actOutput)
		does.u32(actOutput, port)
		if ok && string(as) == string(does.b) && covers(mask, want.b) && find(find(k, keyTunnel), tunnelFamilies[family].typ) != nil {
			return in, key, port, true
		}
	}
	return 0, 0, 0, false
}
