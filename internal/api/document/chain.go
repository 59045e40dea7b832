package document

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Chain is a list of rules, which are documents of their own.
type Chain struct {
	Name string `yaml:"name"`
	ID   string `yaml:"id"`
}

// PortGroup is a set of ports, which name it.
type PortGroup struct {
	Name     string `yaml:"name"`
	ID       string `yaml:"id"`
	Stateful bool   `yaml:"stateful"`
}

// AddressGroup is a set of addresses and subnets.
type AddressGroup struct {
	Name      string   `yaml:"name"`
	ID        string   `yaml:"id"`
	Addresses []string `yaml:"addresses"`
}

// Rule is a rule of a chain.
type Rule struct {
	Name     string      `yaml:"name"`
	ID       string      `yaml:"id"`
	Chain    string      `yaml:"chain,required"`
	Position int         `yaml:"position,required"`
	Match    *wire.Match `yaml:"match"` // with names in place of ids
	Action   string      `yaml:"action,required"`
	Jump     string      `yaml:"jump"`

	Then     string           `yaml:"then"`
	Targets  []wire.NATTarget `yaml:"targets"`
	Redirect *wire.Redirect   `yaml:"redirect"` // with a name in place of the id
	VLAN     int              `yaml:"vlan"`
	DSCP     *int             `yaml:"dscp"`
	Log      bool             `yaml:"log"`
}

// Kind implements Value.
func (*Chain) Kind() model.Kind { return model.KindChain }

// Kind implements Value.
func (*PortGroup) Kind() model.Kind { return model.KindPortGroup }

// Kind implements Value.
func (*AddressGroup) Kind() model.Kind { return model.KindAddressGroup }

// Kind implements Value.
func (*Rule) Kind() model.Kind { return model.KindRule }

func (v *Chain) identity() (name, id string)        { return v.Name, v.ID }
func (v *PortGroup) identity() (name, id string)    { return v.Name, v.ID }
func (v *AddressGroup) identity() (name, id string) { return v.Name, v.ID }
func (v *Rule) identity() (name, id string)         { return v.Name, v.ID }

func (p *planner) rule(d *Doc, v *Rule, id uuid.UUID) {
	w := &wire.Rule{
		Meta: meta(id, v.Name), ChainID: p.find(d, "chain", model.KindChain, v.Chain), Position: v.Position, Action: v.Action,
		JumpID: p.find(d, "jump", model.KindChain, v.Jump), Match: p.match(d, v.Match),
		Then: v.Then, Targets: v.Targets, VLAN: v.VLAN, DSCP: v.DSCP, Log: v.Log,
	}
	if v.Redirect != nil {
		r := *v.Redirect
		r.Port = p.find(d, "redirect.port", model.KindPort, r.Port)
		w.Redirect = &r
	}
	p.put(d, "", w)
}

// match resolves the references in a condition; nil stays nil.
func (p *planner) match(d *Doc, m *wire.Match) *wire.Match {
	if m == nil {
		return nil
	}
	r := *m
	r.InPorts = p.findAll(d, "match.in_ports", model.KindPort, m.InPorts)
	r.OutPorts = p.findAll(d, "match.out_ports", model.KindPort, m.OutPorts)
	r.InPortGroup = p.find(d, "match.in_port_group", model.KindPortGroup, m.InPortGroup)
	r.OutPortGroup = p.find(d, "match.out_port_group", model.KindPortGroup, m.OutPortGroup)
	r.PortGroup = p.find(d, "match.port_group", model.KindPortGroup, m.PortGroup)
	r.SrcGroup = p.find(d, "match.src_group", model.KindAddressGroup, m.SrcGroup)
	r.DstGroup = p.find(d, "match.dst_group", model.KindAddressGroup, m.DstGroup)
	if _, err := p.index.Find(model.KindBridge, m.Traversed); m.Traversed != "" && err == nil {
		r.Traversed = p.find(d, "match.traversed", model.KindBridge, m.Traversed)
	} else {
		r.Traversed = p.find(d, "match.traversed", model.KindRouter, m.Traversed)
	}
	return &r
}

// findAll resolves a list of references.
func (p *planner) findAll(d *Doc, path string, kind model.Kind, list []string) []string {
	var ids []string
	for i, s := range list {
		ids = append(ids, p.find(d, fmt.Sprintf("%s[%d]", path, i), kind, s))
	}
	return ids
}
