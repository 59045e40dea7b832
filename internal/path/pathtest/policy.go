package pathtest

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// policy reads the statements about filters. Named things must exist, chains excepted.
func (t *Topology) policy(f []string) error {
	switch f[0] {
	case "chain":
		t.chain(f[1])
	case "group":
		var list []netip.Prefix
		for _, s := range f[2:] {
			list = append(list, prefix(s))
		}
		t.Groups[t.name(f[1])] = view.NewAddressGroup(ID(f[1]), f[1], list, nil)
	case "member":
		for _, name := range f[2:] {
			p := t.port(name)
			p.Groups = append(p.Groups, t.name(f[1]))
		}
	case "secure":
		p := t.port(f[1])
		if p.Sources = append(p.Sources, view.NewSource(p.MAC, netip.PrefixFrom(linkLocal(p.MAC), 128))); len(f) == 2 {
			for _, a := range p.Addrs {
				p.Sources = append(p.Sources, view.NewSource(p.MAC, a))
			}
		}
		for _, pair := range f[2:] {
			mac, a, _ := strings.Cut(pair, "=")
			p.Sources = append(p.Sources, view.NewSource(t.MAC(mac), prefix(a)))
		}
	case "filter":
		return t.filter(f[1], f[2], t.chain(f[3]).ID)
	case "rule":
		return t.rule(t.chain(f[1]), f[2], f[3:])
	case "balancer", "listen", "pool", "server", "checked":
		return t.balancing(f)
	case "allow":
		return t.securityRule(f[1], f[2], f[3:])
	case "stateless":
		t.securityGroup(f[1]).Stateful = false
	case "groups":
		p := t.port(f[1])
		p.SecurityGroups = []uuid.UUID{}
		for _, name := range f[2:] {
			p.SecurityGroups = append(p.SecurityGroups, t.securityGroup(name).ID)
		}
	default:
		return fmt.Errorf("unknown statement")
	}
	return nil
}

func (t *Topology) chain(name string) *view.Chain {
	if c := t.Chains[ID(name)]; c != nil {
		return c
	}
	c := &view.Chain{ID: t.name(name), Name: name}
	t.Chains[c.ID] = c
	return c
}

func (t *Topology) filter(name, where string, chain uuid.UUID) error {
	id := ID(name)
	switch where {
	case "in":
		t.port(name).Inbound = chain
	case "out":
		t.port(name).Outbound = chain
	case "pre", "post":
		pre, post := new(uuid.UUID), new(uuid.UUID)
		if br := t.Bridges[id]; br != nil {
			pre, post = &br.Pre, &br.Post
		} else if r := t.Routers[id]; r != nil {
			pre, post = &r.Pre, &r.Post
		}
		if where == "pre" {
			*pre = chain
		} else {
			*post = chain
		}
	default:
		return fmt.Errorf("a filter is in, out, pre or post")
	}
	return nil
}

var verdicts = map[string]view.Verdict{
	"continue": view.VerdictContinue, "accept": view.VerdictAccept, "drop": view.VerdictDrop,
	"reject": view.VerdictReject, "jump": view.VerdictJump, "return": view.VerdictReturn,
}

func (t *Topology) rule(c *view.Chain, action string, words []string) error {
	n := len(c.Rules) + 1
	r := view.Rule{ID: t.name(c.Name + "-" + strconv.Itoa(n)), Position: n, Verdict: view.VerdictAccept}
	var condition []string
	for _, w := range words {
		if then, ok := strings.CutPrefix(w, "then="); ok {
			r.Verdict = verdicts[then]
		} else if w == "log" {
			r.Log = true
		} else {
			condition = append(condition, w)
		}
	}
	m, err := t.Condition(condition...)
	if err != nil {
		return err
	}
	r.Match = view.NewCondition(&m)
	if err := t.effect(&r, action); err != nil {
		return err
	}
	c.Rules = append(c.Rules, r)
	return nil
}

// effect reads ACTION[:ARGUMENT].
func (t *Topology) effect(r *view.Rule, action string) error {
	action, arg, _ := strings.Cut(action, ":")
	switch action {
	case "dnat", "snat":
		r.NAT = view.NewNAT(action == "snat", false, targets(arg))
	case "rev_dnat", "rev_snat":
		r.NAT = view.NewNAT(action == "rev_snat", true, nil)
	case "push_vlan":
		r.VLAN = view.VLANChange(bits(arg, 12))
	case "set_dscp":
		dscp := uint8(bits(arg, 6))
		r.DSCP = &dscp
	case "pop_vlan":
		r.VLAN = view.PopVLAN
	case "redirect":
		f := strings.Split(arg, "/")
		r.Verdict = view.VerdictRedirect
		r.Redirect = view.Redirect{Port: t.port(f[0]).ID, Egress: slices.Contains(f, "egress"), FailOpen: slices.Contains(f, "fail_open")}
	default:
		v, ok := verdicts[action]
		if !ok {
			return fmt.Errorf("no action %q", action)
		}
		if r.Verdict = v; arg != "" {
			r.Jump = t.chain(arg).ID
		}
	}
	return nil
}

// targets reads ADDR[-ADDR][@PORT[-PORT]],...
func targets(s string) (ts []view.Target) {
	for _, x := range strings.Split(s, ",") {
		addrs, ports, ok := strings.Cut(x, "@")
		from, to, isRange := strings.Cut(addrs, "-")
		if !isRange {
			to = from
		}
		t := view.Target{From: addr(from), To: addr(to)}
		if ok {
			r := numbers(ports)
			t.Lo, t.Hi = r.From, r.To
		}
		ts = append(ts, t)
	}
	return ts
}

// translated collects what the rules of chains, and of those that they jump to, translate to.
func (t *Topology) translated(chains ...uuid.UUID) *view.Translated {
	x := &view.Translated{}
	seen := map[uuid.UUID]bool{}
	for i := 0; i < len(chains); i++ {
		c := t.Chains[chains[i]]
		if c == nil || seen[c.ID] {
			continue
		}
		seen[c.ID] = true
		for _, r := range c.Rules {
			x.Add(r.NAT)
			chains = append(chains, r.Jump)
		}
	}
	return x.OrNil()
}

// Condition reads words such as proto=6, !src=10.0.0.0/8, no_vlan and invert. Ports, groups and devices go by name, numbers are
// decimal or 0x.
func (t *Topology) Condition(words ...string) (m model.Condition, err error) {
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		name, not := strings.CutPrefix(key, "!")
		if f, ok := model.ParseMatchField(name); ok && not {
			m.Not |= f
		}
		if err := t.field(&m, name, value); err != nil {
			return m, err
		}
	}
	r := &model.Rule{Match: m}
	model.Normalize(r)
	return r.Match, nil
}

func (t *Topology) field(m *model.Condition, name, value string) error {
	switch name {
	case "invert":
		m.Invert = true
	case "no_vlan":
		m.NoVLAN = true
	case "connection":
		m.Connection = model.Connection(value)
	case "fragment":
		m.Fragment = model.Fragment(value)
	case "in_ports":
		m.InPorts = t.ports(value)
	case "out_ports":
		m.OutPorts = t.ports(value)
	case "in_port_group":
		m.InPortGroup = ID(value)
	case "out_port_group":
		m.OutPortGroup = ID(value)
	case "port_group":
		m.PortGroup = ID(value)
	case "traversed":
		m.Traversed = ID(value)
	case "eth_type":
		m.EthType = uint16(bits(value, 16))
	case "eth_src":
		m.EthSrc = t.macMatch(value)
	case "eth_dst":
		m.EthDst = t.macMatch(value)
	case "vlan":
		m.VLAN = uint16(bits(value, 12))
	case "tos":
		tos := uint8(bits(value, 8))
		m.TOS = &tos
	case "proto":
		m.Proto = uint8(bits(value, 8))
	case "src":
		m.Src = prefix(value)
	case "dst":
		m.Dst = prefix(value)
	case "original_dst":
		m.OriginalDst = prefix(value)
	case "dst_rewritten":
		m.DstRewritten = true
	case "src_group":
		m.SrcGroup = ID(value)
	case "dst_group":
		m.DstGroup = ID(value)
	case "src_ports":
		m.SrcPorts = numbers(value)
	case "dst_ports":
		m.DstPorts = numbers(value)
	case "icmp_types":
		m.ICMPTypes = numbers(value)
	case "icmp_codes":
		m.ICMPCodes = numbers(value)
	case "quoted_src":
		m.QuotedSrc = prefix(value)
	case "quoted_dst":
		m.QuotedDst = prefix(value)
	default:
		return fmt.Errorf("no field %q", name)
	}
	return nil
}

func (t *Topology) ports(s string) (ids []uuid.UUID) {
	for _, name := range strings.Split(s, ",") {
		ids = append(ids, t.port(name).ID)
	}
	return ids
}

func (t *Topology) macMatch(s string) model.MACMatch {
	addr, mask, ok := strings.Cut(s, "/")
	if !ok {
		return model.MACMatch{Addr: t.MAC(addr), Mask: match.Broadcast}
	}
	return model.MACMatch{Addr: t.MAC(addr), Mask: t.MAC(mask)}
}

func prefix(s string) netip.Prefix {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.MustParsePrefix(s)
}

func numbers(s string) *model.Range {
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		to = from
	}
	return &model.Range{From: uint16(bits(from, 16)), To: uint16(bits(to, 16))}
}

func bits(s string, size int) uint64 {
	n, err := strconv.ParseUint(s, 0, size)
	if err != nil {
		panic(err)
	}
	return n
}
