package document

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// QoSPolicy is what ports that name it may use of the network.
type QoSPolicy struct {
	Name    string               `yaml:"name"`
	ID      string               `yaml:"id"`
	Egress  *wire.BandwidthLimit `yaml:"egress"`
	Ingress *wire.BandwidthLimit `yaml:"ingress"`
	DSCP    *int                 `yaml:"dscp"`
}

// Mirror copies traffic of a port, bridge or router to another port.
type Mirror struct {
	Name          string      `yaml:"name"`
	ID            string      `yaml:"id"`
	Port          string      `yaml:"port"`
	Bridge        string      `yaml:"bridge"`
	Router        string      `yaml:"router"`
	Direction     string      `yaml:"direction"`
	BeforeFilters bool        `yaml:"before_filters"`
	Match         *wire.Match `yaml:"match"` // with names in place of ids
	ToPort        string      `yaml:"to_port,required"`
}

// Kind implements Value.
func (*QoSPolicy) Kind() model.Kind { return model.KindQoSPolicy }

// Kind implements Value.
func (*Mirror) Kind() model.Kind { return model.KindMirror }

func (v *QoSPolicy) identity() (name, id string) { return v.Name, v.ID }
func (v *Mirror) identity() (name, id string)    { return v.Name, v.ID }

func (p *planner) mirror(d *Doc, v *Mirror, id uuid.UUID) {
	p.put(d, "", &wire.Mirror{
		Meta:   meta(id, v.Name),
		PortID: p.find(d, "port", model.KindPort, v.Port), BridgeID: p.find(d, "bridge", model.KindBridge, v.Bridge),
		RouterID: p.find(d, "router", model.KindRouter, v.Router), Direction: v.Direction, BeforeFilters: v.BeforeFilters,
		Match: p.match(d, v.Match), ToPortID: p.find(d, "to_port", model.KindPort, v.ToPort),
	})
}

func renderQoSPolicy(o *model.QoSPolicy, add func(string, any)) {
	if l := wire.FromLimit(o.Egress); l != nil {
		add("egress", given(l))
	}
	if l := wire.FromLimit(o.Ingress); l != nil {
		add("ingress", given(l))
	}
	if o.DSCP != nil {
		add("dscp", int(*o.DSCP))
	}
}
