package wire

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// QoSPolicy is model.QoSPolicy on the wire.
type QoSPolicy struct {
	Meta
	Egress  *BandwidthLimit `json:"egress,omitempty" doc:"Limit of what the VM sends."`
	Ingress *BandwidthLimit `json:"ingress,omitempty" doc:"Limit of what the VM gets."`
	DSCP    *int            `json:"dscp,omitempty" minimum:"0" maximum:"63" doc:"Differentiated services code point of the IP packets that the VM sends. Absent: they keep theirs. ECN is not touched."`
}

// BandwidthLimit is model.BandwidthLimit on the wire and in documents.
type BandwidthLimit struct {
	MaxKbps      int `json:"max_kbps" yaml:"max_kbps,required" minimum:"1" maximum:"100000000" example:"10000" doc:"Rate in 1000 bits a second, of Ethernet frames."`
	MaxBurstKbps int `json:"max_burst_kbps,omitempty" yaml:"max_burst_kbps" minimum:"0" maximum:"100000000" doc:"What may come at once, in 1000 bits, at least 600. Absent: what max_kbps allows in 200 ms, or 600 if that is more."`
}

// Mirror is model.Mirror on the wire.
type Mirror struct {
	Meta
	PortID        string `json:"port_id,omitempty" format:"uuid" doc:"Port whose traffic is copied. Exactly one of port_id, bridge_id and router_id is set."`
	BridgeID      string `json:"bridge_id,omitempty" format:"uuid" doc:"Bridge whose traffic is copied."`
	RouterID      string `json:"router_id,omitempty" format:"uuid" doc:"Router whose traffic is copied: IP packets that it routes or takes."`
	Direction     string `json:"direction,omitempty" enum:"in,out,both" default:"both" doc:"What comes in by the port, or into the device; what leaves; or both."`
	BeforeFilters bool   `json:"before_filters,omitempty" doc:"Copy what has yet to pass the filters, so that what they drop is seen; else what has passed them."`
	Match         *Match `json:"match,omitempty" doc:"What is copied, as in rules, but for connection. Absent: all."`
	ToPortID      string `json:"to_port_id" format:"uuid" doc:"Port of a bridge, without a peer, that gets the copies."`
}

// Kind implements Object.
func (*QoSPolicy) Kind() model.Kind { return model.KindQoSPolicy }

// Kind implements Object.
func (*Mirror) Kind() model.Kind { return model.KindMirror }

// Model implements Object.
func (w *QoSPolicy) Model() (model.Object, error) {
	var p parser
	o := &model.QoSPolicy{Meta: p.meta(w.Meta), Egress: p.limit("egress", w.Egress), Ingress: p.limit("ingress", w.Ingress)}
	o.DSCP = p.dscp(w.DSCP)
	return p.done(o)
}

// Model implements Object.
func (w *Mirror) Model() (model.Object, error) {
	var p parser
	o := &model.Mirror{
		Meta: p.meta(w.Meta), PortID: p.id("port_id", w.PortID), BridgeID: p.id("bridge_id", w.BridgeID), RouterID: p.id("router_id", w.RouterID),
		Direction: model.MirrorDirection(w.Direction), BeforeFilters: w.BeforeFilters, ToPortID: p.id("to_port_id", w.ToPortID),
	}
	if w.Match != nil {
		o.Match = p.match(w.Match)
	}
	return p.done(o)
}

func (p *parser) limit(path string, l *BandwidthLimit) (m model.BandwidthLimit) {
	if l == nil {
		return m
	}
	m.MaxKbps = uint32(p.within(path+".max_kbps", l.MaxKbps, 1, model.MaxKbps))
	m.MaxBurstKbps = uint32(p.within(path+".max_burst_kbps", l.MaxBurstKbps, 0, model.MaxKbps))
	return m
}

func (p *parser) within(path string, n, least, most int) int {
	if n < least || n > most {
		p.fail(path, fmt.Sprint(n), fmt.Sprintf("is not within %d and %d", least, most))
		return least
	}
	return n
}

func (p *parser) dscp(w *int) *uint8 {
	if w == nil {
		return nil
	}
	dscp := uint8(p.within("dscp", *w, 0, 63))
	return &dscp
}

func dscpNumber(o *uint8) *int {
	if o == nil {
		return nil
	}
	dscp := int(*o)
	return &dscp
}

// FromLimit is nil for no limit.
func FromLimit(l model.BandwidthLimit) *BandwidthLimit {
	if l.MaxKbps == 0 {
		return nil
	}
	return &BandwidthLimit{int(l.MaxKbps), int(l.MaxBurstKbps)}
}

func fromQoSPolicy(o *model.QoSPolicy, meta Meta) *QoSPolicy {
	w := &QoSPolicy{Meta: meta, Egress: FromLimit(o.Egress), Ingress: FromLimit(o.Ingress)}
	w.DSCP = dscpNumber(o.DSCP)
	return w
}

func fromMirror(o *model.Mirror, meta Meta) *Mirror {
	return &Mirror{Meta: meta, PortID: idText(o.PortID), BridgeID: idText(o.BridgeID), RouterID: idText(o.RouterID), Direction: string(o.Direction),
		BeforeFilters: o.BeforeFilters, Match: FromCondition(&o.Match, func(_ model.Kind, id uuid.UUID) string { return id.String() }), ToPortID: idText(o.ToPortID)}
}
