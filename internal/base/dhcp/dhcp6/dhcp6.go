// Package dhcp6 answers DHCPv6 clients (RFC 8415). Like dhcp4 it keeps no leases: addresses are fixed.
package dhcp6

import (
	"bytes"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// UDP ports.
const (
	ServerPort = 547
	ClientPort = 546
)

// Servers is All_DHCP_Relay_Agents_and_Servers, where clients send to (RFC 8415 section 7.1).
var Servers = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 13: 1, 15: 2})

// serverID is the same on every host, so that a client keeps its server when its VM moves.
var serverID dhcpv6.DUID = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: dhcp.ServerMAC[:]}

// Answer decides on a message of client c, which is on subnet s. A client without an address is told the rest. It
// allocates: DHCP is rare, and the caller's admission bounds it. Safe for concurrent use.
func Answer(s *dhcp.Subnet, c dhcp.Client, request []byte) dhcp.Outcome {
	malformed := dhcp.Outcome{Verdict: dhcp.Malformed, Reply: "no message that a client may send"}
	if len(request) > dhcp.MaxMessage {
		return malformed
	}
	m, ok := parse(request)
	if !ok {
		return malformed
	}
	r := reply{subnet: s, client: c, request: m, outcome: dhcp.Outcome{Request: m.kind.String()}}
	ours, wrong := r.addressed()
	switch {
	case wrong:
		malformed.Request = r.outcome.Request
		return malformed
	case !ours:
		r.outcome.Verdict, r.outcome.Reply = dhcp.NotOurs, "the client has chosen another server"
		return r.outcome
	}
	return r.answer()
}

// Solicit is the message with which a client begins: it asks for an address.
func Solicit(mac match.MAC) []byte {
	m := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeSolicit}
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: mac[:]}))
	m.AddOption(&dhcpv6.OptIANA{})
	return m.ToBytes()
}

// reply is an answer in the making.
type reply struct {
	subnet  *dhcp.Subnet
	client  dhcp.Client
	request message
	outcome dhcp.Outcome
}

// addressed is RFC 8415 section 16: which identifiers a message of each type must have and must not have.
func (r *reply) addressed() (ours, wrong bool) {
	m := &r.request
	ours = m.server == nil || bytes.Equal(m.server, serverID.ToBytes())
	switch m.kind {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRebind:
		return ours, m.client == nil || m.server != nil
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		return ours, m.client == nil || m.server == nil
	case dhcpv6.MessageTypeInformationRequest:
		return ours, len(m.identities) > 0
	}
	return false, true
}

func (r *reply) answer() dhcp.Outcome {
	switch r.request.kind {
	case dhcpv6.MessageTypeSolicit:
		if r.request.rapid {
			m := r.message(dhcpv6.MessageTypeReply)
			m.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
			return r.lease(m)
		}
		return r.lease(r.message(dhcpv6.MessageTypeAdvertise))
	case dhcpv6.MessageTypeConfirm:
		return r.confirm()
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		// The address stays the client's, whatever it thinks of it.
		return r.status(iana.StatusSuccess)
	case dhcpv6.MessageTypeInformationRequest:
		m := r.message(dhcpv6.MessageTypeReply)
		r.configure(m)
		return r.finish(m)
	}
	return r.lease(r.message(dhcpv6.MessageTypeReply))
}

// lease gives the client's first identity its fixed address. What else it asks for is not to be had, and an
// address that it believes to have and has not is withdrawn (RFC 8415 section 18.3.4).
func (r *reply) lease(m *dhcpv6.Message) dhcp.Outcome {
	given := false
	for _, ia := range r.request.identities {
		x := &dhcpv6.OptIANA{IaId: ia.id, T1: seconds(r.subnet.T1()), T2: seconds(r.subnet.T2())}
		if given || !r.client.Addr.IsValid() {
			x.T1, x.T2 = 0, 0
			x.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail})
		} else {
			given = true
			r.outcome.Addr = r.client.Addr
			life := seconds(r.subnet.Lease)
			x.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: r.client.Addr.AsSlice(), PreferredLifetime: life, ValidLifetime: life})
		}
		if m.MessageType == dhcpv6.MessageTypeReply {
			for _, a := range ia.addrs {
				if a != r.client.Addr {
					x.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice()})
				}
			}
		}
		m.AddOption(x)
	}
	for _, id := range r.request.prefixes {
		x := &dhcpv6.OptIAPD{IaId: id}
		x.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoPrefixAvail})
		m.AddOption(x)
	}
	r.configure(m)
	return r.finish(m)
}

// confirm tells a client that comes back whether its addresses belong here (RFC 8415 section 18.3.3).
func (r *reply) confirm() dhcp.Outcome {
	known, status := false, iana.StatusSuccess
	for _, ia := range r.request.identities {
		for _, a := range ia.addrs {
			known = true
			if a != r.client.Addr {
				status = iana.StatusNotOnLink
			}
		}
	}
	if !known {
		r.outcome.Verdict, r.outcome.Reply = dhcp.Taken, "there is no address to confirm"
		return r.outcome
	}
	return r.status(status)
}

func (r *reply) status(code iana.StatusCode) dhcp.Outcome {
	m := r.message(dhcpv6.MessageTypeReply)
	m.AddOption(&dhcpv6.OptStatusCode{StatusCode: code})
	return r.finish(m)
}

// message starts a reply.
func (r *reply) message(t dhcpv6.MessageType) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: t, TransactionID: r.request.id}
	m.AddOption(dhcpv6.OptServerID(serverID))
	if id := r.request.client; id != nil {
		m.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionClientID, OptionData: id})
	}
	return m
}

func (r *reply) finish(m *dhcpv6.Message) dhcp.Outcome {
	r.outcome.Verdict, r.outcome.Reply, r.outcome.Payload = dhcp.Answered, m.MessageType.String(), m.ToBytes()
	return r.outcome
}

// room is what every link carries in one packet (RFC 8200 section 5), less IPv6 and UDP headers.
const room = 1280 - 40 - 8

// configure adds what the subnet says, as far as it fits.
func (r *reply) configure(m *dhcpv6.Message) {
	s := r.subnet
	left := room - len(m.ToBytes())
	add := func(o dhcpv6.Option) {
		if n := 4 + len(o.ToBytes()); n <= left {
			left -= n
			m.AddOption(o)
		}
	}
	if len(s.DNS) > 0 {
		ips := make([]net.IP, len(s.DNS))
		for i, a := range s.DNS {
			ips[i] = a.AsSlice()
		}
		add(dhcpv6.OptDNS(ips...))
	}
	if s.Domain != "" {
		if labels, err := dhcp.AppendDomain(nil, s.Domain); err == nil {
			add(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionDomainSearchList, OptionData: labels})
		}
	}
	if m.MessageType == dhcpv6.MessageTypeReply && r.request.kind == dhcpv6.MessageTypeInformationRequest {
		add(dhcpv6.OptInformationRefreshTime(seconds(max(s.Lease, minRefresh))))
	}
	for _, o := range s.Options {
		add(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionCode(o.Code), OptionData: o.Data})
	}
}

// minRefresh is IRT_MINIMUM (RFC 8415 section 7.6), in seconds.
const minRefresh = 600

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }
