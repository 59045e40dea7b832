package datapathtest

import (
	"fmt"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// header is what a rewrite may change; each frame is built from one, so that what a
// datapath should have sent is known without rewriting.
type header struct {
	eth      packet.Ether
	ip       packet.IP
	src, dst uint16
}

type rewrite struct {
	name string
	a    action.Action
	f    func(h *header)
}

// rewrites are those that suit a family.
func rewrites(v6 bool) []rewrite {
	to := ip4C
	if v6 {
		to = ip6C
	}
	return []rewrite{
		{"eth src", action.Action{Op: action.SetEthSrc, MAC: macC}, func(h *header) { h.eth.Src = macC }},
		{"eth dst", action.Action{Op: action.SetEthDst, MAC: macC}, func(h *header) { h.eth.Dst = macC }},
		{"src", action.Action{Op: action.SetSrc, Addr: to}, func(h *header) { h.ip.Src = to }},
		{"dst", action.Action{Op: action.SetDst, Addr: to}, func(h *header) { h.ip.Dst = to }},
		{"tos", action.Action{Op: action.SetTOS, Value: 0xb9}, func(h *header) { h.ip.TOS = 0xb9 }},
		{"src port", action.Action{Op: action.SetSrcPort, Value: 40001}, func(h *header) { h.src = 40001 }},
		{"dst port", action.Action{Op: action.SetDstPort, Value: 53}, func(h *header) { h.dst = 53 }},
		{"dec ttl", action.Action{Op: action.DecTTL}, func(h *header) { h.ip.TTL-- }},
	}
}

// transports build a frame from a header.
var transports = []struct {
	name  string
	ports bool
	build func(h header) []byte
}{
	{"udp", true, func(h header) []byte { return packet.BuildUDP(nil, h.eth, h.ip, h.src, h.dst, data) }},
	{"udp without checksum", true, func(h header) []byte {
		f := packet.BuildUDP(nil, h.eth, h.ip, h.src, h.dst, data)
		if v, _ := packet.Parse(f, 0); v.Is4() {
			f[v.L4+6], f[v.L4+7] = 0, 0
		}
		return f
	}},
	{"tcp", true, func(h header) []byte {
		return packet.BuildTCP(nil, h.eth, h.ip, packet.TCP{SrcPort: h.src, DstPort: h.dst, Flags: packet.FlagACK}, data)
	}},
	{"echo", false, func(h header) []byte { return packet.BuildEchoRequest(nil, h.eth, h.ip, h.dst, 3, data) }},
	{"gre", false, func(h header) []byte { return packet.BuildIP(nil, h.eth, h.ip, 47, data) }},
}

// rewriteCases calls fn with each single rewrite, and all of them at once, on each transport and family.
func rewriteCases(fn func(name string, frame, want []byte, as []action.Action)) {
	for _, v6 := range []bool{false, true} {
		start := header{eth, packet.IP{Src: ip4A, Dst: ip4B, TTL: 33, TOS: 4, ID: 7}, 1000, 2000}
		if v6 {
			start.ip.Src, start.ip.Dst = ip6A, ip6B
		}
		for _, tr := range transports {
			all, allWant := []action.Action{}, start
			for _, r := range rewrites(v6) {
				echoID := tr.name == "echo" && r.a.Op == action.SetDstPort
				if !tr.ports && !echoID && (r.a.Op == action.SetSrcPort || r.a.Op == action.SetDstPort) {
					continue
				}
				want := start
				r.f(&want)
				r.f(&allWant)
				all = append(all, r.a)
				fn(fmt.Sprintf("%s v6=%v %s", tr.name, v6, r.name), tr.build(start), tr.build(want), []action.Action{r.a})
			}
			fn(fmt.Sprintf("%s v6=%v all", tr.name, v6), tr.build(start), tr.build(allWant), all)
		}
	}
}

func flowRewrites(b *bench) {
	ps := b.ports(2)
	rewriteCases(func(name string, frame, want []byte, as []action.Action) {
		if b.coarse(ps[0], frame) {
			return
		}
		b.put(ps[0], frame, append(as, output(ps[1]))...)
		b.send(ps[0], frame)
		b.expectAs(name, ps[1], want)
	})
}

func flowVLAN(b *bench) {
	ps := b.ports(3)
	push := func(tci uint16) action.Action { return action.Action{Op: action.PushVLAN, Value: tci} }
	pop := action.Action{Op: action.PopVLAN}
	frame := func(vlan uint16, dst match.Addr) []byte {
		e := eth
		e.VLAN = vlan
		return packet.BuildUDP(nil, e, packet.IP{Src: ip4A, Dst: dst}, 1, 2, data)
	}
	const vid5, vid6 = 5 | match.VLANPresent, 0x6006 | match.VLANPresent
	plain, tagged := frame(0, ip4B), frame(vid5, ip4B)
	for _, c := range []struct {
		name     string
		in       []byte
		as       []action.Action
		out, end []byte // at ports 1 and 2; nil: no output there
	}{
		{"push", plain, []action.Action{push(5), output(ps[1])}, tagged, nil},
		{"pop", tagged, []action.Action{pop, output(ps[1])}, plain, nil},
		{"swap", tagged, []action.Action{pop, push(0x6006), output(ps[1])}, frame(vid6, ip4B), nil},
		{"push for one", plain, []action.Action{output(ps[1]), push(0x6006), output(ps[2])}, plain, frame(vid6, ip4B)},
		{"pop for one", tagged, []action.Action{output(ps[1]), pop, output(ps[2])}, tagged, plain},
		{"rewrite inside", tagged, []action.Action{{Op: action.SetDst, Addr: ip4C}, output(ps[1])}, frame(vid5, ip4C), nil},
		{"rewrite, push, then rewrite", plain, []action.Action{push(5), output(ps[1]), {Op: action.SetDst, Addr: ip4C}, output(ps[2])}, tagged, frame(vid5, ip4C)},
	} {
		b.put(ps[0], c.in, c.as...)
		b.send(ps[0], c.in)
		b.expectAs(c.name, ps[1], c.out)
		if c.end != nil {
			b.expectAs(c.name, ps[2], c.end)
		}
	}
	b.silent(ps...)
}
