package wire

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Rule is model.Rule on the wire.
type Rule struct {
	Meta
	ChainID  string `json:"chain_id" format:"uuid" doc:"Chain that the rule is in."`
	Position int    `json:"position" minimum:"1" doc:"Place in the chain: rules are tried in ascending order. Unique in the chain."`
	Match    *Match `json:"match,omitempty" doc:"Condition that a packet must fit; every packet when absent."`
	Action   string `json:"action" enum:"accept,drop,reject,jump,return,continue,dnat,snat,rev_dnat,rev_snat,push_vlan,pop_vlan,set_dscp,redirect" doc:"What becomes of a packet that fits: accept, drop, reject and redirect decide; jump goes on in another chain, return in the calling one (at the top level it accepts), continue with the next rule. dnat and snat translate destination and source, rev_dnat and rev_snat translate answers back, push_vlan and pop_vlan add and take off a tag, set_dscp marks an IP packet; then says how such a packet goes on."`
	JumpID   string `json:"jump_id,omitempty" format:"uuid" doc:"Chain to jump to; only with action jump."`

	Then     string      `json:"then,omitempty" enum:"accept,continue,return" doc:"How a packet goes on that the rule has changed; accept when absent."`
	Targets  []NATTarget `json:"targets,omitempty" doc:"What to translate to; only with actions dnat and snat."`
	Redirect *Redirect   `json:"redirect,omitempty" doc:"Where to send packets; only with action redirect."`
	VLAN     int         `json:"vlan,omitempty" minimum:"0" maximum:"4094" doc:"Id of the tag to add; only with action push_vlan."`
	DSCP     *int        `json:"dscp,omitempty" minimum:"0" maximum:"63" doc:"Differentiated services code point to mark IP packets with; only with action set_dscp. ECN is not touched."`
	Log      bool        `json:"log,omitempty" doc:"Have the agent write a line about each new flow that fits, at most 10 a second for each port."`
}

// NATTarget is model.NATTarget on the wire and in documents.
type NATTarget struct {
	Addresses string `json:"addresses" yaml:"addresses,required" example:"10.0.1.5-10.0.1.9" doc:"Address, range of addresses, or subnet."`
	Ports     string `json:"ports,omitempty" yaml:"ports" example:"8080" doc:"Port or range of ports. Absent: ports stay as they are; sources translated to several addresses get one from 1024 on."`
}

// Redirect is model.Redirect on the wire and, with a name in place of the id, in documents.
type Redirect struct {
	Port     string `json:"port" yaml:"port,required" doc:"Port to send packets to."`
	Egress   bool   `json:"egress,omitempty" yaml:"egress" doc:"They leave by the port, past its outbound filter. Otherwise they come in by it, through its inbound filter."`
	FailOpen bool   `json:"fail_open,omitempty" yaml:"fail_open" doc:"While the port is down, or has nothing at its other end, the rule fits nothing. Otherwise it drops."`
}

// Kind implements Object.
func (*Rule) Kind() model.Kind { return model.KindRule }

// Model implements Object.
func (w *Rule) Model() (model.Object, error) {
	var p parser
	o := &model.Rule{
		Meta: p.meta(w.Meta), ChainID: p.id("chain_id", w.ChainID), Position: w.Position,
		Action: model.RuleAction(w.Action), JumpID: p.id("jump_id", w.JumpID),
		Then: model.RuleAction(w.Then), VLAN: p.vlan("vlan", w.VLAN), DSCP: p.dscp(w.DSCP), Log: w.Log,
	}
	if w.Match != nil {
		o.Match = p.match(w.Match)
	}
	for i := range w.Targets {
		o.Targets = append(o.Targets, p.target(index("targets", i), &w.Targets[i]))
	}
	if r := w.Redirect; r != nil {
		o.Redirect = model.Redirect{PortID: p.id("redirect.port", r.Port), Egress: r.Egress, FailOpen: r.FailOpen}
	}
	return p.done(o)
}

// target reads an address, a range such as 10.0.0.1-10.0.0.9, or a subnet, all of whose addresses are meant.
func (p *parser) target(path string, w *NATTarget) model.NATTarget {
	t := model.NATTarget{Ports: p.numbers(path+".ports", w.Ports)}
	from, to, isRange := strings.Cut(w.Addresses, "-")
	if isRange {
		t.From, t.To = p.ip(path+".addresses", strings.TrimSpace(from)), p.ip(path+".addresses", strings.TrimSpace(to))
		return t
	}
	s := p.subnet(path+".addresses", w.Addresses)
	if !s.IsValid() {
		if w.Addresses == "" {
			p.fail(path+".addresses", "", "is empty")
		}
		return t
	}
	if s != s.Masked() {
		p.fail(path+".addresses", w.Addresses, fmt.Sprintf("has bits after its length: write %s, or the address alone", s.Masked()))
	}
	t.From, t.To = s.Masked().Addr(), lastOf(s)
	return t
}

// lastOf is the last address of a prefix.
func lastOf(s netip.Prefix) netip.Addr {
	b := s.Masked().Addr().AsSlice()
	for i := s.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func fromRule(o *model.Rule, meta Meta) *Rule {
	w := &Rule{
		Meta: meta, ChainID: idText(o.ChainID), Position: o.Position, Action: string(o.Action), JumpID: idText(o.JumpID),
		Match: FromCondition(&o.Match, func(_ model.Kind, id uuid.UUID) string { return id.String() }),
		Then:  string(o.Then), Targets: FromTargets(o.Targets), VLAN: int(o.VLAN), DSCP: dscpNumber(o.DSCP), Log: o.Log,
	}
	if r := o.Redirect; r != (model.Redirect{}) {
		w.Redirect = &Redirect{Port: idText(r.PortID), Egress: r.Egress, FailOpen: r.FailOpen}
	}
	return w
}

// FromTargets converts what a rule translates to.
func FromTargets(ts []model.NATTarget) []NATTarget {
	var w []NATTarget
	for _, t := range ts {
		addresses := t.From.String()
		if t.To != t.From {
			addresses = fmt.Sprintf("%s-%s", t.From, t.To)
		}
		w = append(w, NATTarget{Addresses: addresses, Ports: rangeText(t.Ports)})
	}
	return w
}
