package fake

import (
	"bytes"
	"fmt"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

// Packet is what arrives on an interface.
type Packet struct {
	Frame  []byte // not kept
	GSO    packet.GSO
	TunKey uint32 // on a tunnel port: the VNI
}

// Inject lets a packet arrive on an interface. When it returns, the packet was sent,
// queued as a miss or dropped. Without a port on the interface nothing happens.
func (d *Datapath) Inject(name string, p Packet) error {
	d.mu.Lock()
	i := d.ifaces[name]
	if i == nil {
		d.mu.Unlock()
		return fmt.Errorf("%s: %w", name, datapath.ErrNoInterface)
	}
	if i.port != nil {
		d.ingress(i.port, p)
	}
	d.flush()
	return nil
}

// ingress is the life of a packet in the datapath: parse, look up, act or miss.
func (d *Datapath) ingress(in *port, p Packet) {
	packets := uint64(max(1, p.GSO.Segs))
	in.stats.RxPackets += packets
	in.stats.RxBytes += uint64(len(p.Frame))
	v, reason := packet.Parse(p.Frame, in.No)
	if reason != drop.None {
		in.drop(reason)
		return
	}
	if in.egress.exceeds(uint64(len(p.Frame)), d.clock.Now()) {
		in.drop(drop.EgressLimit)
		return
	}
	v.Key.TunKey = p.TunKey
	if in.Class == datapath.Tunnel && p.TunKey != replicate.Key {
		to, ok := d.keys[p.TunKey]
		if !ok {
			in.drop(drop.TunnelKey)
			return
		}
		if to != in.No {
			d.forward(in, action.Physical{{Op: action.Output, Port: to}}, p, packets)
			return
		}
	}
	f := d.flows[v.Key]
	switch {
	case f == nil:
		d.miss(in, &v, p.GSO, datapath.MissNoFlow)
	case v.L3Len > 0 && f.ttlCost > 0 && v.TTL <= f.ttlCost:
		d.miss(in, &v, p.GSO, datapath.MissTTL)
	case f.maxLen > 0 && v.WireLen(p.GSO) > int(f.maxLen):
		d.miss(in, &v, p.GSO, datapath.MissMTU)
	default:
		f.use(&v, packets, uint64(len(p.Frame)), d.clock.Now())
		d.forward(in, f.actions, p, packets)
	}
}

func (d *Datapath) miss(in *port, v *packet.View, gso packet.GSO, why datapath.MissReason) {
	if len(v.Frame) > maxFrame {
		in.drop(drop.TooBig)
		return
	}
	if htb.IsClosed(in.Credit) {
		in.drop(drop.NotReady)
		return
	}
	ok, lent := htb.Take(in.Credit, &d.root)
	if !ok {
		in.drop(drop.NoCredit)
		return
	}
	in.stats.Admitted++
	d.worker(&v.Key).push(datapath.Miss{Key: v.Key, Reason: why, Lent: lent, GSO: gso, Time: d.clock.Now(), Frame: bytes.Clone(v.Frame)})
}

func (d *Datapath) forward(in *port, as action.Physical, p Packet, packets uint64) {
	if len(as) == 0 {
		in.drop(drop.FlowDrop)
		return
	}
	d.sink = func(no uint32, tunnel *action.Action, frame []byte) {
		out := d.ports[no]
		if out == nil || d.ifaces[out.Interface] == nil {
			in.drop(drop.OutputGone)
			return
		}
		if out.ingress.exceeds(uint64(len(frame)), d.clock.Now()) {
			out.drop(drop.IngressLimit)
			return
		}
		out.stats.TxPackets += packets
		out.stats.TxBytes += uint64(len(frame))
		d.send(out, tunnel, frame)
	}
	if err := d.rw.Apply(bytes.Clone(p.Frame), p.GSO, as); err != nil {
		in.drop(drop.RewriteErr)
	}
}

// Execute implements datapath.Datapath. A packet with several outputs is sent to those that
// exist even when Err names one that does not.
func (d *Datapath) Execute(es []datapath.Exec) {
	d.mu.Lock()
	d.counts.Execute++
	for i := range es {
		e := &es[i]
		e.Err = d.execute(e)
		if e.Err != nil {
			d.counts.ExecFail++
		} else {
			d.counts.Executed++
		}
	}
	d.flush()
}

func (d *Datapath) execute(e *datapath.Exec) error {
	if d.closed {
		return datapath.ErrClosed
	}
	if d.faults.Execute != nil {
		if err := d.faults.Execute(e); err != nil {
			return err
		}
	}
	var gone error
	d.sink = func(no uint32, tunnel *action.Action, frame []byte) {
		out, err := d.port(no)
		if err != nil {
			gone = err
			return
		}
		d.send(out, tunnel, frame)
	}
	if err := d.rw.Apply(e.Frame, e.GSO, e.Actions); err != nil {
		return err
	}
	return gone
}

// send puts a frame on the port's interface.
func (d *Datapath) send(out *port, tunnel *action.Action, frame []byte) {
	i := d.ifaces[out.Interface]
	if i == nil {
		return // it has gone, and takes what it was sent along
	}
	s := Sent{Interface: i.name, Port: out.No, Frame: bytes.Clone(frame)}
	if tunnel != nil {
		s.Tunnel, s.Key, s.Peer = true, tunnel.Key, tunnel.Addr
	}
	if d.onSend != nil {
		d.pending = append(d.pending, s)
		return
	}
	i.out = append(i.out, s)
}

// OnSend makes fn get each frame instead of Received: a wire to another datapath. It runs
// without locks, in the goroutine that called Inject or Execute. Nil: Received again.
func (d *Datapath) OnSend(fn func(Sent)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onSend = fn
}

// flush unlocks and hands over what was sent meanwhile.
func (d *Datapath) flush() {
	fn, sent := d.onSend, d.pending
	d.pending = nil
	d.mu.Unlock()
	for _, s := range sent {
		fn(s)
	}
}

// Received takes the oldest frame that left through an interface.
func (d *Datapath) Received(name string) (s Sent, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.ifaces[name]
	if i == nil || len(i.out) == 0 {
		return s, false
	}
	s, i.out = i.out[0], i.out[1:]
	return s, true
}
