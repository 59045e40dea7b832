package sim

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// vm sends, answers what is sent to it, and resolves addresses as hosts do.
type vm struct {
	s       *Sim
	name    string
	port    uuid.UUID
	bridge  uuid.UUID
	mac     match.MAC
	addr    match.Addr
	prefix  netip.Prefix
	gateway match.Addr // zero: none

	host  *host // where it is plugged in; nil: nowhere
	iface string

	neighbours map[match.Addr]*neighbour
	silent     bool // it answers nobody
}

// neighbour is an address that a VM has resolved, or is asking for.
type neighbour struct {
	mac   match.MAC
	until int64 // 0: it has not answered yet
	tries int
	queue []func(match.MAC)
}

const (
	neighbourFor   = 40 * time.Second
	neighbourRetry = time.Second
	neighbourTries = 12
)

func (s *Sim) newVM(p vmPlan) *vm {
	v := &vm{s: s, name: p.name, port: id(p.name), bridge: id(p.bridge), mac: p.mac, addr: match.AddrFrom(p.addr), prefix: p.prefix,
		iface: "tap-" + p.name, neighbours: map[match.Addr]*neighbour{}}
	if p.gateway.IsValid() {
		v.gateway = match.AddrFrom(p.gateway)
	}
	s.vms = append(s.vms, v)
	return v
}

// place plugs it in at a host, or, with nil, nowhere.
func (v *vm) place(h *host) {
	if v.host != nil {
		v.host.unplug(v.iface)
	}
	v.host = h
	clear(v.neighbours)
	if h != nil {
		h.plug(v.iface)
	}
}

// announce is what a hypervisor sends when a VM has moved.
func (v *vm) announce() {
	if v.host != nil && !v.silent {
		v.transmit(packet.BuildGratuitousARP(nil, v.mac, v.addr))
	}
}

func (v *vm) transmit(frame []byte) {
	if v.host == nil {
		return
	}
	v.s.logf("%s sends %s", v.name, describe(frame))
	v.s.oracle.remember(v.host, v, frame)
	v.host.inject(v.iface, frame, 0)
}

// send builds and sends a frame to an address, when its next hop's MAC is known.
func (v *vm) send(to match.Addr, build func(to match.MAC) []byte, sent func(frame []byte)) {
	hop := to
	if !v.prefix.Contains(to.Netip()) {
		if hop = v.gateway; hop == (match.Addr{}) {
			return
		}
	}
	out := func(mac match.MAC) {
		if v.host == nil {
			return
		}
		frame := build(mac)
		if sent != nil {
			sent(frame)
		}
		v.transmit(frame)
	}
	n := v.neighbours[hop]
	if n != nil && n.until > v.s.now() {
		out(n.mac)
		return
	}
	if n == nil || n.until != 0 {
		n = &neighbour{}
		v.neighbours[hop] = n
		defer v.ask(hop, n)
	}
	n.queue = append(n.queue, out)
}

// reaches reports whether it knows a next hop for an address.
func (v *vm) reaches(a match.Addr) bool {
	return v.prefix.Contains(a.Netip()) || v.gateway != match.Addr{}
}

// ask sends a request, again and again until there is an answer.
func (v *vm) ask(hop match.Addr, n *neighbour) {
	if v.neighbours[hop] != n || n.until != 0 {
		return
	}
	if n.tries++; n.tries > neighbourTries || v.host == nil || v.silent {
		delete(v.neighbours, hop)
		return
	}
	v.transmit(packet.BuildARPRequest(nil, v.mac, v.addr, hop))
	v.s.after(neighbourRetry, func() { v.ask(hop, n) })
}

// receive is what a frame does to it.
func (v *vm) receive(h *host, frame []byte) {
	if v.host != h {
		return // it has left meanwhile
	}
	v.s.logf("%s gets %s", v.name, describe(frame))
	p, bad := packet.Parse(frame, 0)
	if bad != drop.None {
		v.s.fail("frames are whole", 0, "%s gets a frame that is %s", v.name, bad)
		return
	}
	if packetID(&p) != 0 {
		v.s.judge.delivered(v, frame, &p)
	}
	if p.Key.EthDst != v.mac && !p.Key.EthDst.IsMulticast() {
		return
	}
	if a, ok := p.ARP(); ok {
		v.receiveARP(&p, a)
		return
	}
	if p.Key.Dst != v.addr || v.silent {
		return
	}
	if n := packetID(&p); n != 0 && !isReply(n) {
		v.answer(&p, n)
	}
}

func (v *vm) receiveARP(p *packet.View, a packet.ARP) {
	if n := v.neighbours[a.SPA]; n != nil {
		n.mac, n.until = a.SHA, v.s.now()+int64(neighbourFor)
		queue := n.queue
		n.queue = nil
		for _, send := range queue {
			send(n.mac)
		}
	}
	if a.Op == packet.ARPRequest && a.TPA == v.addr && a.SPA != v.addr && !v.silent {
		v.transmit(packet.BuildARPReply(nil, p, v.mac))
	}
}

// Every packet that counts carries a number: of the talk, its place in it, and whether it is an answer.

var magic = []byte("VIADUCT!")

const payloadLen = 16

func payload(n uint64) []byte { return binary.BigEndian.AppendUint64(slices.Clone(magic), n) }

func packetID(p *packet.View) uint64 {
	b := p.Payload()
	if len(b) < payloadLen || string(b[:len(magic)]) != string(magic) {
		return 0
	}
	return binary.BigEndian.Uint64(b[len(magic):])
}

func isReply(n uint64) bool { return n&1 == 1 }

// answer sends a packet back the way that one has come.
func (v *vm) answer(p *packet.View, n uint64) {
	k := p.Key
	back := packet.IP{Src: k.Dst, Dst: k.Src}
	flags := uint8(packet.FlagACK)
	if p.TCPFlags()&packet.FlagSYN != 0 {
		flags |= packet.FlagSYN
	}
	if p.TCPFlags()&packet.FlagFIN != 0 {
		flags |= packet.FlagFIN
	}
	m, _ := p.ICMP()
	build := func(to match.MAC) []byte {
		eth := packet.Ether{Dst: to, Src: v.mac}
		switch k.Proto {
		case packet.ProtoTCP:
			return packet.BuildTCP(nil, eth, back, packet.TCP{SrcPort: k.DstPort, DstPort: k.SrcPort, Flags: flags}, payload(n|1))
		case packet.ProtoUDP:
			return packet.BuildUDP(nil, eth, back, k.DstPort, k.SrcPort, payload(n|1))
		}
		return packet.BuildICMP(nil, eth, back, packet.ICMP{Rest: m.Rest}, payload(n|1))
	}
	v.send(k.Src, build, func(frame []byte) { v.s.judge.sent(v, frame, n|1) })
}
