// Package dhcp4 answers DHCPv4 clients (RFC 2131). It is a function of what the topology knows and of
// the message: there are no leases to keep, because addresses are fixed.
package dhcp4

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// UDP ports.
const (
	ServerPort = 67
	ClientPort = 68
)

// Answer decides on a message of client c, which is on subnet s, where server is the address we
// answer from. It allocates: DHCP is rare, and the caller's admission bounds it. Safe for concurrent use.
func Answer(s *dhcp.Subnet, server netip.Addr, c dhcp.Client, request []byte) dhcp.Outcome {
	m, ok := parse(request)
	if !ok {
		return dhcp.Outcome{Verdict: dhcp.Malformed, Reply: "no message that a client may send"}
	}
	o := dhcp.Outcome{Request: m.MessageType().String()}
	switch hw := m.ClientHWAddr; {
	case !m.GatewayIPAddr.IsUnspecified():
		o.Verdict, o.Reply = dhcp.NotOurs, "relayed: clients are answered where they are"
		return o
	case [6]byte(hw) != c.MAC:
		o.Verdict, o.Reply = dhcp.NotOurs, "the client is "+hw.String()+", not the port's VM"
		return o
	}
	r := reply{subnet: s, server: server, client: c, request: m}
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return r.lease(o, dhcpv4.MessageTypeOffer)
	case dhcpv4.MessageTypeRequest:
		return r.judge(o)
	case dhcpv4.MessageTypeInform:
		return r.inform(o)
	case dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeRelease:
		// The address stays the client's, whatever it thinks of it.
		o.Verdict, o.Reply = dhcp.Taken, "the address is fixed: nothing to give back"
		return o
	}
	o.Verdict, o.Reply = dhcp.Malformed, "no message that a client may send"
	return o
}

// Discover is the message with which a client begins.
func Discover(mac match.MAC) []byte {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: mac[:], ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero,
		ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero, Options: make(dhcpv4.Options),
	}
	m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeDiscover))
	return m.ToBytes()
}

// parse reads a request; false when a field that decides anything is malformed.
func parse(b []byte) (*dhcpv4.DHCPv4, bool) {
	if len(b) > dhcp.MaxMessage {
		return nil, false
	}
	m, err := dhcpv4.FromBytes(b)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest || m.HWType != iana.HWTypeEthernet || len(m.ClientHWAddr) != 6 {
		return nil, false
	}
	for code, n := range map[dhcpv4.OptionCode]int{
		dhcpv4.OptionDHCPMessageType: 1, dhcpv4.OptionRequestedIPAddress: 4, dhcpv4.OptionServerIdentifier: 4,
		dhcpv4.OptionMaximumDHCPMessageSize: 2,
	} {
		if m.Options.Has(code) && len(m.Options.Get(code)) != n {
			return nil, false
		}
	}
	// It is echoed; pieces of an option are joined, which may make it longer than one can be.
	return m, len(m.Options.Get(dhcpv4.OptionClientIdentifier)) <= 255
}

// reply is an answer in the making.
type reply struct {
	subnet  *dhcp.Subnet
	server  netip.Addr
	client  dhcp.Client
	request *dhcpv4.DHCPv4
}

// judge is RFC 2131 section 4.3.2: the client selects, comes back, renews or rebinds, and
// in each case says which address it means.
func (r *reply) judge(o dhcp.Outcome) dhcp.Outcome {
	m := r.request
	if id := m.ServerIdentifier(); id != nil && addr(id) != r.server {
		o.Verdict, o.Reply = dhcp.NotOurs, "the client has chosen server "+id.String()
		return o
	}
	want := addr(m.RequestedIPAddress())
	if !want.IsValid() {
		want = addr(m.ClientIPAddr)
	}
	switch want {
	case r.client.Addr:
		return r.lease(o, dhcpv4.MessageTypeAck)
	case netip.Addr{}, netip.IPv4Unspecified():
		o.Verdict, o.Reply = dhcp.Malformed, "a request for no address"
		return o
	}
	n := r.message(dhcpv4.MessageTypeNak)
	n.Flags |= 0x8000 // so that a relay, too, would not try to reach an address that does not hold
	n.UpdateOption(dhcpv4.OptMessage("the address of this port is " + r.client.Addr.String()))
	return finish(o, n, netip.Addr{})
}

// lease offers or grants the fixed address.
func (r *reply) lease(o dhcp.Outcome, t dhcpv4.MessageType) dhcp.Outcome {
	m := r.message(t)
	m.YourIPAddr = r.client.Addr.AsSlice()
	if t == dhcpv4.MessageTypeAck {
		m.ClientIPAddr = r.request.ClientIPAddr
	}
	for _, x := range []struct {
		code    dhcpv4.OptionCode
		seconds uint32
	}{
		{dhcpv4.OptionIPAddressLeaseTime, r.subnet.Lease},
		{dhcpv4.OptionRenewTimeValue, r.subnet.T1()},
		{dhcpv4.OptionRebindingTimeValue, r.subnet.T2()},
	} {
		m.Options[x.code.Code()] = binary.BigEndian.AppendUint32(nil, x.seconds)
	}
	r.configure(m)
	o.Addr = r.client.Addr
	return finish(o, m, r.to(r.client.Addr))
}

// inform tells a client that has an address about the rest (RFC 2131 section 4.3.5).
func (r *reply) inform(o dhcp.Outcome) dhcp.Outcome {
	m := r.message(dhcpv4.MessageTypeAck)
	m.ClientIPAddr = r.request.ClientIPAddr
	r.configure(m)
	return finish(o, m, r.to(r.client.Addr))
}

// to is where the client can be reached (RFC 2131 section 4.1).
func (r *reply) to(yours netip.Addr) netip.Addr {
	switch m := r.request; {
	case !m.ClientIPAddr.IsUnspecified():
		return addr(m.ClientIPAddr)
	case m.IsBroadcast():
		return netip.Addr{}
	}
	return yours
}

func finish(o dhcp.Outcome, m *dhcpv4.DHCPv4, to netip.Addr) dhcp.Outcome {
	o.Verdict, o.Reply, o.Payload, o.To = dhcp.Answered, m.MessageType().String(), m.ToBytes(), to
	return o
}

// message starts a reply. The library's own constructor draws a transaction id first, which would
// make the simulation depend on chance.
func (r *reply) message(t dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	q := r.request
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: q.HWType, TransactionID: q.TransactionID, Flags: q.Flags, ClientHWAddr: q.ClientHWAddr,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		Options: make(dhcpv4.Options),
	}
	m.UpdateOption(dhcpv4.OptMessageType(t))
	m.UpdateOption(dhcpv4.OptServerIdentifier(r.server.AsSlice()))
	if id := q.Options.Get(dhcpv4.OptionClientIdentifier); id != nil { // RFC 6842
		m.Options[dhcpv4.OptionClientIdentifier.Code()] = id
	}
	return m
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	return a
}
