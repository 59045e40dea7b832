package interop

import (
	"net/netip"
	"strconv"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

func id(name string) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)) }

func meta(name string) model.Meta { return model.Meta{ID: id(name), Name: name} }

const host = "host"

// objects is the network in Viaduct's model.
func objects(n *network) (all []model.Object) {
	add := func(o model.Object) { all = append(all, o) }
	add(&model.Host{Meta: meta(host)})
	for _, s := range n.switches {
		add(&model.Bridge{Meta: meta(s.name), AdminStateUp: true})
		for i, v := range s.vms {
			p := &model.Port{Meta: meta(v.name), BridgeID: id(s.name), AdminStateUp: !v.down, PortSecurity: v.secured}
			if !v.unknown {
				p.MAC, p.Addresses = v.mac, []netip.Prefix{single(v.v4), single(v.v6)}
			}
			p.InboundFilterID = chain(s, v.name+"-in", v.in, add)
			p.OutboundFilterID = chain(s, v.name+"-out", v.out, add)
			add(p)
			add(&model.Binding{Meta: model.Meta{ID: p.ID}, PortID: p.ID, HostID: id(host), Interface: "tap" + strconv.Itoa(i) + s.name})
		}
		for _, p := range s.rports {
			add(&model.Port{Meta: meta(s.name + "-" + p.on.name), BridgeID: id(s.name), AdminStateUp: true, PeerID: id(p.name)})
		}
	}
	for _, r := range n.routers {
		x := &model.Router{Meta: meta(r.name), AdminStateUp: !r.down}
		if len(r.policy) > 0 {
			x.PostRoutingID = rules(r.name+"-post", nil, r.policy, add)
		}
		add(x)
		for _, p := range r.ports {
			q := &model.Port{Meta: meta(p.name), RouterID: id(r.name), AdminStateUp: !p.down, MAC: p.mac, Addresses: p.addrs, Masquerade: p.masquerade}
			switch {
			case p.peer != nil:
				q.PeerID = id(p.peer.name)
			default:
				q.PeerID = id(p.sw.name + "-" + r.name)
			}
			add(q)
		}
		for i, rt := range r.routes {
			x := &model.Route{Meta: meta(r.name + "-route" + strconv.Itoa(i)), RouterID: id(r.name), Destination: rt.dst, Weight: 100}
			if rt.discard {
				x.NextHop = model.NextHopBlackhole
			} else {
				x.NextHop, x.PortID, x.Gateway = model.NextHopPort, id(rt.out.name), rt.via
			}
			add(x)
		}
		for i, f := range r.fips {
			add(&model.FloatingIP{Meta: meta(r.name + "-fip" + strconv.Itoa(i)), PortID: id(r.gate.name), Address: f.floating, FixedAddress: f.fixed})
		}
	}
	return all
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// chain is a filter of a VM's port. Where connections are followed it says first what OVN takes for granted: neighbour discovery
// is not filtered, and answers pass.
func chain(s *vswitch, name string, rs []rule, add func(model.Object)) uuid.UUID {
	first := []*model.Rule{{Match: model.Condition{Proto: packet.ProtoICMPv6, ICMPTypes: &model.Range{From: 133, To: 136}}, Action: model.RuleAccept}}
	if s.stateful {
		first = append(first, &model.Rule{Match: model.Condition{Connection: model.ConnectionReturn}, Action: model.RuleAccept})
	}
	return rules(name, first, rs, add)
}

func rules(name string, first []*model.Rule, rs []rule, add func(model.Object)) uuid.UUID {
	add(&model.Chain{Meta: meta(name)})
	for _, r := range rs {
		x := &model.Rule{Match: r.cond.model(), Action: map[string]model.RuleAction{"allow": model.RuleAccept, "drop": model.RuleDrop,
			"reject": model.RuleReject, "jump": model.RuleJump, "return": model.RuleReturn}[r.action]}
		if r.sub != nil {
			x.JumpID = rules(name+"-"+strconv.Itoa(len(first)), nil, r.sub, add)
		}
		first = append(first, x)
	}
	for i, r := range first {
		r.Meta, r.ChainID, r.Position = meta(name+"-rule"+strconv.Itoa(i)), id(name), i+1
		add(r)
	}
	return id(name)
}

func (c *cond) model() (m model.Condition) {
	m.EthType = map[int]uint16{4: packet.EthTypeIPv4, 6: packet.EthTypeIPv6}[c.family]
	m.Proto, m.Src, m.Dst = c.proto, c.src, c.dst
	if c.notSrc {
		m.Not |= model.MatchSrc
	}
	if c.notDst {
		m.Not |= model.MatchDst
	}
	if c.sports[1] != 0 {
		m.SrcPorts = &model.Range{From: c.sports[0], To: c.sports[1]}
	}
	if c.dports[1] != 0 {
		m.DstPorts = &model.Range{From: c.dports[0], To: c.dports[1]}
	}
	if c.icmpType >= 0 && (c.proto == packet.ProtoICMP || c.proto == packet.ProtoICMPv6) {
		m.ICMPTypes = &model.Range{From: uint16(c.icmpType), To: uint16(c.icmpType)}
	}
	return m
}
