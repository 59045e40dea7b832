package dhcp6

import (
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"
)

// Bounds of what is looked at, so that the answer fits into a packet.
const (
	maxEach = 4       // identities of a kind, and addresses of each
	maxDUID = 2 + 128 // bytes of an identifier (RFC 8415 section 11.1)
)

// message is what counts of a client's message.
type message struct {
	kind           dhcpv6.MessageType
	id             dhcpv6.TransactionID
	client, server []byte // identifiers; nil: absent
	rapid          bool
	identities     []identity
	prefixes       [][4]byte // identities that ask for a prefix
}

// identity is an association of non-temporary addresses (RFC 8415 section 21.4).
type identity struct {
	id    [4]byte
	addrs []netip.Addr
}

// options reads options without looking inside. The library's own parser of a message would also
// expand compressed domain names: 2 kB of them cost 140 ms and 170 MB.
func options(b []byte) (dhcpv6.Options, error) {
	var o dhcpv6.Options
	err := o.FromBytesWithParser(b, func(code dhcpv6.OptionCode, data []byte) (dhcpv6.Option, error) {
		return &dhcpv6.OptionGeneric{OptionCode: code, OptionData: data}, nil
	})
	return o, err
}

func parse(b []byte) (m message, ok bool) {
	if len(b) < dhcpv6.MessageHeaderSize {
		return m, false
	}
	m.kind, m.id = dhcpv6.MessageType(b[0]), dhcpv6.TransactionID(b[1:4])
	os, err := options(b[dhcpv6.MessageHeaderSize:])
	if err != nil {
		return m, false
	}
	for _, o := range os {
		data, ok := o.ToBytes(), true
		switch o.Code() {
		case dhcpv6.OptionClientID:
			ok = m.client == nil && identifier(data)
			m.client = data
		case dhcpv6.OptionServerID:
			ok = m.server == nil && identifier(data)
			m.server = data
		case dhcpv6.OptionRapidCommit:
			m.rapid = true
		case dhcpv6.OptionIANA:
			ok = m.addIdentity(data)
		case dhcpv6.OptionIAPD:
			if ok = len(data) >= 12; ok && len(m.prefixes) < maxEach {
				m.prefixes = append(m.prefixes, [4]byte(data))
			}
		}
		if !ok {
			return m, false
		}
	}
	return m, true
}

// identifier reports whether a DUID has a type and a length that is allowed.
func identifier(b []byte) bool { return len(b) > 2 && len(b) <= maxDUID }

func (m *message) addIdentity(b []byte) bool {
	if len(b) < 12 {
		return false
	}
	os, err := options(b[12:])
	if err != nil {
		return false
	}
	ia := identity{id: [4]byte(b)}
	for _, o := range os {
		data := o.ToBytes()
		if o.Code() != dhcpv6.OptionIAAddr || len(ia.addrs) == maxEach {
			continue
		}
		if len(data) < 24 {
			return false
		}
		ia.addrs = append(ia.addrs, netip.AddrFrom16([16]byte(data)))
	}
	if len(m.identities) < maxEach {
		m.identities = append(m.identities, ia)
	}
	return true
}
