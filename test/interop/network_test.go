package interop

import (
	"fmt"
	"net/netip"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// network is a virtual network in neither side's terms. Names are unique over all networks of a run.
type network struct {
	name     string
	switches []*vswitch
	routers  []*vrouter
}

type vswitch struct {
	name     string
	stateful bool // its filters follow connections
	vms      []*vm
	rports   []*rport // routers' ports on it
	net4     netip.Prefix
	net6     netip.Prefix
}

type vm struct {
	name    string
	on      *vswitch
	mac     match.MAC
	v4, v6  netip.Addr
	unknown bool // neither side is told its addresses
	down    bool
	secured bool
	in, out []rule // from and to the VM
}

type vrouter struct {
	name   string
	down   bool
	ports  []*rport
	routes []vroute
	fips   []fip
	policy []rule // after routing
	gate   *rport // where it translates; nil: nowhere
}

type rport struct {
	name       string
	on         *vrouter
	mac        match.MAC
	addrs      []netip.Prefix
	sw         *vswitch // what it is linked to: a switch,
	peer       *rport   // or another router
	down       bool
	masquerade bool
}

type vroute struct {
	dst     netip.Prefix
	via     netip.Addr
	out     *rport
	discard bool
}

type fip struct{ floating, fixed netip.Addr }

// cond is a condition that both sides can say. Zero fields count for nothing.
type cond struct {
	family   int // 4, 6; 0: both
	proto    uint8
	src, dst netip.Prefix
	notSrc   bool
	notDst   bool
	dports   [2]uint16
	sports   [2]uint16
	icmpType int // with proto ICMP: -1 any
}

type rule struct {
	cond   cond
	action string // allow, drop, reject, jump, return
	sub    []rule // with jump
}

func (n *network) vms() (all []*vm) {
	for _, s := range n.switches {
		all = append(all, s.vms...)
	}
	return all
}

func (n *network) rports() (all []*rport) {
	for _, r := range n.routers {
		all = append(all, r.ports...)
	}
	return all
}

// vmOf finds a VM by name.
func (n *network) vmOf(name string) *vm {
	for _, v := range n.vms() {
		if v.name == name {
			return v
		}
	}
	return nil
}

func (p *rport) v4() netip.Addr { return p.family(true) }
func (p *rport) v6() netip.Addr { return p.family(false) }

func (p *rport) family(is4 bool) netip.Addr {
	for _, a := range p.addrs {
		if a.Addr().Is4() == is4 {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

func (p *rport) linkLocal() netip.Addr { return linkLocal(p.mac) }

func linkLocal(m match.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// nth is the n-th address of a prefix.
func nth(p netip.Prefix, n int) netip.Addr {
	if p.Addr().Is4() {
		b := p.Addr().As4()
		b[3] += byte(n)
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	b[15] += byte(n)
	return netip.AddrFrom16(b)
}

func prefix(format string, a ...any) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, a...))
}
