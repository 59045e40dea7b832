package fake

import (
	"fmt"
	"slices"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

type flow struct {
	key            match.Key
	actions        action.Physical
	ttlCost        uint8
	maxLen         uint16
	packets, bytes uint64
	used           int64
	tcpFlags       uint8
	deleted        bool
}

// PutFlows implements datapath.Datapath.
func (d *Datapath) PutFlows(fs []datapath.Flow) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts.PutFlows++
	if d.closed {
		return 0, datapath.ErrClosed
	}
	for i := range fs {
		if err := d.putFlow(i, &fs[i]); err != nil {
			return i, err
		}
		d.counts.FlowsPut++
	}
	return len(fs), nil
}

func (d *Datapath) putFlow(i int, f *datapath.Flow) error {
	if d.faults.PutFlow != nil {
		if err := d.faults.PutFlow(i, f); err != nil {
			return err
		}
	}
	if err := packet.Check(&f.Key, f.Actions); err != nil {
		return fmt.Errorf("%w: %w", datapath.ErrActions, err)
	}
	outputs := 0
	for j := range f.Actions {
		switch f.Actions[j].Op {
		case action.Output, action.Tunnel:
			outputs++
		case action.CheckLen:
			if j > 0 || f.Actions[j].Value == 0 {
				return fmt.Errorf("action %d checks the length: %w", j, datapath.ErrActions)
			}
		}
	}
	if outputs > MaxOutputs {
		return fmt.Errorf("%d outputs: %w", outputs, datapath.ErrActions)
	}
	old := d.flows[f.Key]
	if bound := d.faults.MaxFlows; old == nil && bound > 0 && len(d.flows) >= bound {
		return fmt.Errorf("%d flows: %w", len(d.flows), datapath.ErrFull)
	}
	if old != nil {
		old.deleted = true
	}
	fl := &flow{key: f.Key, actions: slices.Clone(f.Actions), ttlCost: f.Actions.TTLCost(), maxLen: f.Actions.MaxLen(), used: d.clock.Now()}
	d.flows[f.Key] = fl
	d.order = append(d.order, fl)
	d.compact()
	return nil
}

// DelFlows implements datapath.Datapath.
func (d *Datapath) DelFlows(keys []match.Key) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts.DelFlows++
	if d.closed {
		return datapath.ErrClosed
	}
	if d.faults.DelFlows != nil {
		if err := d.faults.DelFlows(keys); err != nil {
			return err
		}
	}
	for _, k := range keys {
		if f := d.flows[k]; f != nil {
			f.deleted = true
			delete(d.flows, k)
			d.counts.FlowsDeleted++
		}
	}
	d.compact()
	return nil
}

// compact drops what was deleted from the order, once it is most of it.
func (d *Datapath) compact() {
	if len(d.order) > 2*len(d.flows)+16 {
		d.order = slices.DeleteFunc(d.order, func(f *flow) bool { return f.deleted })
	}
}

// DumpFlows implements datapath.Datapath: a snapshot, in the order of installation.
func (d *Datapath) DumpFlows(fn func(*datapath.FlowInfo) bool) error {
	d.mu.Lock()
	d.counts.Dumps++
	if d.closed {
		d.mu.Unlock()
		return datapath.ErrClosed
	}
	if d.faults.Dump != nil {
		if err := d.faults.Dump(); err != nil {
			d.mu.Unlock()
			return err
		}
	}
	now := d.clock.Now()
	infos := make([]datapath.FlowInfo, 0, len(d.flows))
	for _, f := range d.order {
		if !f.deleted {
			infos = append(infos, datapath.FlowInfo{Key: f.key, Actions: f.actions, Packets: f.packets, Bytes: f.bytes,
				Idle: time.Duration(now - f.used), TCPFlags: f.tcpFlags})
		}
	}
	d.mu.Unlock() // fn may call the datapath
	for i := range infos {
		if !fn(&infos[i]) {
			break
		}
	}
	return nil
}

// use counts a hit.
func (f *flow) use(v *packet.View, packets, bytes uint64, now int64) {
	f.packets += packets
	f.bytes += bytes
	f.used = now
	f.tcpFlags |= v.TCPFlags() & (packet.FlagFIN | packet.FlagRST)
}
