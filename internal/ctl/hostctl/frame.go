package hostctl

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/dhcp/dhcp4"
	"github.com/viaduct-net/viaduct/internal/base/dhcp/dhcp6"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
)

// packetFlags describe a packet on the command line.
type packetFlags struct {
	src, dst       string
	srcMAC, dstMAC string
	udp, tcp       string
	icmp, arp      bool
	dhcp, dhcp6    bool
	ttl            uint8
	vlan           uint16
}

func (p *packetFlags) register(f *pflag.FlagSet) {
	f.StringVar(&p.src, "src", "", "source address (default: the port's)")
	f.StringVar(&p.dst, "dst", "", "destination address")
	f.StringVar(&p.srcMAC, "src-mac", "", "source MAC (default: the port's)")
	f.StringVar(&p.dstMAC, "dst-mac", "", "destination MAC (default: the neighbour's or the gateway's)")
	f.StringVar(&p.udp, "udp", "", "a UDP packet, SOURCE:DESTINATION port")
	f.StringVar(&p.tcp, "tcp", "", "a TCP SYN, SOURCE:DESTINATION port")
	f.BoolVar(&p.icmp, "icmp", false, "an echo request (the default)")
	f.BoolVar(&p.arp, "arp", false, "ask for --dst by ARP, or by neighbour solicitation")
	f.BoolVar(&p.dhcp, "dhcp", false, "ask for an address by DHCP")
	f.BoolVar(&p.dhcp6, "dhcp6", false, "ask for an address by DHCPv6")
	f.Uint8Var(&p.ttl, "ttl", 64, "TTL or hop limit")
	f.Uint16Var(&p.vlan, "vlan", 0, "802.1Q VLAN id")
}

// frames are what is to be traced: from the file, or the one that the flags describe.
func (p *packetFlags) frames(c *cobra.Command, client *debug.Client, port, pcap string) ([][]byte, error) {
	if pcap != "" {
		return readPcap(pcap)
	}
	if p.dst == "" && !p.dhcp && !p.dhcp6 {
		return nil, exit.Usagef("--dst: say where the packet goes, or give --pcap FILE")
	}
	ports, err := client.Ports(c.Context())
	if err != nil {
		return nil, err
	}
	at := findPort(ports, port)
	build := func() ([]byte, error) { return p.build(at, ports) }
	if p.dhcp || p.dhcp6 {
		build = func() ([]byte, error) { return p.ask(at) }
	}
	frame, err := build()
	return [][]byte{frame}, err
}

func findPort(ports []debug.Port, name string) debug.Port {
	for _, p := range ports {
		if p.Name == name || p.ID == name || p.Interface == name {
			return p
		}
	}
	return debug.Port{}
}

func (p *packetFlags) build(at debug.Port, ports []debug.Port) ([]byte, error) {
	dst, err := netip.ParseAddr(p.dst)
	if err != nil {
		return nil, exit.Usagef("--dst: %w", err)
	}
	src, err := p.source(at, dst)
	if err != nil {
		return nil, err
	}
	eth := packet.Ether{}
	if eth.Src, err = orMAC("--src-mac", p.srcMAC, at.MAC); err != nil {
		return nil, err
	}
	if p.vlan != 0 {
		eth.VLAN = p.vlan&0xfff | match.VLANPresent
	}
	s, d := match.AddrFrom(src), match.AddrFrom(dst)
	if p.arp {
		if dst.Is4() {
			return packet.BuildARPRequest(nil, eth.Src, s, d), nil
		}
		return packet.BuildNeighbourSolicitation(nil, eth.Src, s, d), nil
	}
	if eth.Dst, err = orMAC("--dst-mac", p.dstMAC, nextHop(at, dst, ports)); err != nil {
		return nil, err
	}
	ip := packet.IP{Src: s, Dst: d, TTL: p.ttl}
	switch {
	case p.udp != "" && p.tcp != "":
		return nil, exit.Usagef("--udp and --tcp: choose one")
	case p.udp != "":
		sp, dp, err := portPair("--udp", p.udp)
		return packet.BuildUDP(nil, eth, ip, sp, dp, nil), err
	case p.tcp != "":
		sp, dp, err := portPair("--tcp", p.tcp)
		return packet.BuildTCP(nil, eth, ip, packet.TCP{SrcPort: sp, DstPort: dp, Flags: 2}, nil), err
	}
	return packet.BuildEchoRequest(nil, eth, ip, 1, 1, nil), nil
}

// ask is the first message of a DHCP client.
func (p *packetFlags) ask(at debug.Port) ([]byte, error) {
	mac, err := orMAC("--src-mac", p.srcMAC, at.MAC)
	if err != nil {
		return nil, err
	}
	if p.dhcp {
		eth := packet.Ether{Dst: match.Broadcast, Src: mac}
		ip := packet.IP{Src: packet.Addr4([]byte{0, 0, 0, 0}), Dst: packet.Addr4([]byte{255, 255, 255, 255}), TTL: p.ttl}
		return packet.BuildUDP(nil, eth, ip, dhcp4.ClientPort, dhcp4.ServerPort, dhcp4.Discover(mac)), nil
	}
	eth := packet.Ether{Dst: match.MAC{0x33, 0x33, 0, 1, 0, 2}, Src: mac}
	ip := packet.IP{Src: match.Addr{0: 0xfe, 1: 0x80, 15: 1}, Dst: match.AddrFrom(dhcp6.Servers), TTL: p.ttl}
	return packet.BuildUDP(nil, eth, ip, dhcp6.ClientPort, dhcp6.ServerPort, dhcp6.Solicit(mac)), nil
}

// source is --src, or the port's address of the destination's family.
func (p *packetFlags) source(at debug.Port, dst netip.Addr) (netip.Addr, error) {
	if p.src != "" {
		a, err := netip.ParseAddr(p.src)
		if err == nil && a.Is4() != dst.Is4() {
			err = fmt.Errorf("%s and %s are of different families", p.src, p.dst)
		}
		if err != nil {
			return a, exit.Usagef("--src: %w", err)
		}
		return a, nil
	}
	for _, x := range at.Addresses {
		if a, err := netip.ParsePrefix(x); err == nil && a.Addr().Is4() == dst.Is4() {
			return a.Addr(), nil
		}
	}
	return netip.Addr{}, exit.Usagef("--src: the topology knows no address of the port's VM; give one")
}

// nextHop is the MAC to which the VM would send: a neighbour's on the same bridge, else the gateway's.
func nextHop(at debug.Port, dst netip.Addr, ports []debug.Port) string {
	for _, p := range ports {
		if p.Device != at.Device {
			continue
		}
		for _, x := range p.Addresses {
			if a, err := netip.ParsePrefix(x); err == nil && a.Addr() == dst && p.MAC != "" {
				return p.MAC
			}
		}
	}
	return at.GatewayMAC
}

func orMAC(flag, given, known string) (m match.MAC, err error) {
	if given == "" {
		given = known
	}
	if given == "" {
		return m, exit.Usagef("%s: the topology does not know it; give one", flag)
	}
	hw, err := net.ParseMAC(given)
	if err != nil || len(hw) != len(m) {
		return m, exit.Usagef("%s: %q is no Ethernet address", flag, given)
	}
	return match.MAC(hw), nil
}

func portPair(flag, s string) (src, dst uint16, err error) {
	a, b, ok := strings.Cut(s, ":")
	x, err1 := strconv.ParseUint(a, 10, 16)
	y, err2 := strconv.ParseUint(b, 10, 16)
	if !ok || err1 != nil || err2 != nil {
		return 0, 0, exit.Usagef("%s %q: want SOURCE:DESTINATION, two ports from 0 to 65535", flag, s)
	}
	return uint16(x), uint16(y), nil
}
