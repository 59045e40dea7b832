package pathtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// Simulate runs one packet through the network, into c.
func (t *Topology) Simulate(c *sim.Context, in *Injection) {
	tr := c.Trace
	c.Reset()
	c.Topo, c.State, c.Packet, c.GSO, c.Trace = t, &t.State, in.View, in.GSO, tr
	if in.Egress {
		sim.SimulateEgress(c, in.Port)
		return
	}
	sim.Simulate(c, in.Port)
}

// Outcome is everything that a simulation decided, as text, with names for ids. With
// follow, the generated packets are simulated too, indented below.
func (t *Topology) Outcome(in *Injection, follow bool) string {
	c := &sim.Context{Trace: &trace.Node{What: "packet"}}
	t.Simulate(c, in)
	var b strings.Builder
	t.outcome(&b, c)
	for i, g := range c.Generated {
		if !follow {
			break
		}
		v, why := packet.Parse(g.Frame, 0)
		if why != drop.None {
			fmt.Fprintf(&b, "generated %d: %s\n", i, why)
			continue
		}
		next := Injection{Port: g.Port, Egress: true, View: v}
		fmt.Fprintf(&b, "generated %d:\n", i)
		for line := range strings.Lines(t.Outcome(&next, true)) {
			b.WriteString("\t" + line)
		}
	}
	return b.String()
}

func (t *Topology) outcome(b *strings.Builder, c *sim.Context) {
	var w strings.Builder
	fmt.Fprintf(&w, "result: %s", c.Result)
	if c.Reason != drop.None {
		fmt.Fprintf(&w, ", %s", c.Reason)
	}
	if c.UserSpace {
		w.WriteString(", user space only")
	}
	w.WriteString("\n")
	if c.Result == sim.ResultNotYet {
		fmt.Fprintf(&w, "wait: %s\n", c.Wait)
	}
	if c.Quoted.Proto != 0 {
		fmt.Fprintf(&w, "quotes: %s:%d > %s:%d\n", c.Quoted.Src, c.Quoted.SrcPort, c.Quoted.Dst, c.Quoted.DstPort)
	}
	for _, a := range c.Actions {
		fmt.Fprintf(&w, "action: %s\n", describe(a))
	}
	fmt.Fprintf(&w, "mask: %s\n", c.Mask)
	var tags []string
	for _, x := range c.Tags {
		tags = append(tags, fmt.Sprintf("tag: %s\n", x))
	}
	slices.Sort(tags) // by text, so that the order of evaluation may change
	for _, x := range slices.Compact(tags) {
		w.WriteString(x)
	}
	for _, l := range c.Learn {
		switch l.Kind {
		case sim.LearnMAC:
			fmt.Fprintf(&w, "learn: %s vlan %d at port %s on bridge %s\n", l.MAC, l.VLAN, l.Port, l.Device)
		case sim.LearnNeighbour:
			fmt.Fprintf(&w, "learn: %s at %s on port %s\n", l.Addr, l.MAC, l.Device)
		case sim.LearnConnection:
			fmt.Fprintf(&w, "learn: %s, answered by %s, on behalf of %s\n", tag.Of(l.Conn, l.Device, &l.Orig), tag.Of(l.Conn, l.Device, &l.Reply), l.Port)
		case sim.LearnReplied:
			fmt.Fprintf(&w, "learn: %s is an answer\n", tag.Of(l.Conn, l.Device, &l.Orig))
		case sim.LearnBridgeNeighbour:
			in := ""
			if l.VLAN != 0 {
				in = fmt.Sprintf(" vlan %d", l.VLAN)
			}
			fmt.Fprintf(&w, "learn: %s at %s%s on bridge %s\n", l.Addr, l.MAC, in, l.Device)
		}
	}
	for _, g := range c.Generated {
		fmt.Fprintf(&w, "generate: out of %s: %s\n", g.Port, Describe(g.Frame))
	}
	if c.Trace != nil {
		_ = c.Trace.Render(&w) // a strings.Builder does not fail
	}
	s := w.String()
	for id, name := range t.names {
		s = strings.ReplaceAll(s, id.String(), name)
	}
	b.WriteString(s)
}

func describe(a action.Action) string {
	switch a.Op {
	case action.SetEthSrc:
		return "set eth src " + a.MAC.String()
	case action.SetEthDst:
		return "set eth dst " + a.MAC.String()
	case action.DecTTL:
		return "dec ttl"
	case action.Forward:
		return "forward " + a.VPort.String()
	}
	return strings.ReplaceAll(a.String(), "_", " ")
}

// Describe is one line about a frame.
func Describe(frame []byte) string {
	v, why := packet.Parse(frame, 0)
	if why != drop.None {
		return why.String()
	}
	k := &v.Key
	s := fmt.Sprintf("%s > %s ", k.EthSrc, k.EthDst)
	if a, ok := v.ARP(); ok {
		if a.Op == packet.ARPRequest {
			return s + fmt.Sprintf("arp who has %s, tell %s at %s", a.TPA, a.SPA, a.SHA)
		}
		return s + fmt.Sprintf("arp %s is at %s, to %s at %s", a.SPA, a.SHA, a.TPA, a.THA)
	}
	s += fmt.Sprintf("ip %s > %s ttl %d ", k.Src, k.Dst, v.TTL)
	if n, ok := v.ND(); ok {
		if n.Advert {
			return s + fmt.Sprintf("nd %s is at %s, flags %#02x", n.Target, n.LLA, n.Flags)
		}
		return s + fmt.Sprintf("nd who has %s, asks %s", n.Target, n.LLA)
	}
	if m, ok := v.ICMP(); ok {
		s += fmt.Sprintf("icmp type %d code %d rest %#x", m.Type, m.Code, m.Rest)
		if m.Type == packet.ICMPv6RouterAdv && v.Is6() {
			s += describeAdvert(v.Transport())
		}
		if q, ok := v.Quoted(); ok {
			s += fmt.Sprintf(", quotes %s > %s", q.Key.Src, q.Key.Dst)
		}
		return s + fmt.Sprintf(", checksum %s", packet.ChecksumState(&v))
	}
	if d := describeDHCP(&v); d != "" {
		return s + d
	}
	return s + fmt.Sprintf("proto %d ports %d > %d", k.Proto, k.SrcPort, k.DstPort)
}
