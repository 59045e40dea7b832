package prep

import (
	"hash/maphash"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Key says which packets are the same: the flow key and a digest of the content that
// decides although the key does not hold it. Comparable.
type Key struct {
	Flow    match.Key
	Content uint64
	Reason  datapath.MissReason // a packet whose TTL ends, or that is too long, is none of its flow's
}

// UDP ports of DHCP (RFC 2131) and DHCPv6 (RFC 8415).
const (
	dhcpServer, dhcpClient   = 67, 68
	dhcp6Client, dhcp6Server = 546, 547
)

var seed = maphash.MakeSeed()

// DupKey returns the Key of a miss. For ARP, DHCP, later fragments, and ICMP other than echo (errors, whose inner
// header counts, and neighbour discovery) the whole frame is content: two solicitations for
// different targets are no duplicates. The digest of other packets is 0.
func DupKey(m *datapath.Miss) Key {
	k := Key{Flow: m.Key, Reason: m.Reason}
	if readsContent(&m.Key) {
		k.Content = maphash.Bytes(seed, m.Frame)
	}
	return k
}

func readsContent(k *match.Key) bool {
	switch k.EthType {
	case packet.EthTypeARP:
		return true
	case packet.EthTypeIPv4, packet.EthTypeIPv6:
	default:
		return false
	}
	if k.Frag == match.FragLater {
		return true // of which datagram it is, and where in it
	}
	switch k.Proto {
	case packet.ProtoICMP: // echo reply 0, echo request 8 (RFC 792)
		t := k.SrcPort >> 8
		return t != 0 && t != 8
	case packet.ProtoICMPv6: // echo request 128, echo reply 129 (RFC 4443)
		t := k.SrcPort >> 8
		return t != 128 && t != 129
	case packet.ProtoUDP:
		switch k.DstPort {
		case dhcpServer, dhcpClient, dhcp6Client, dhcp6Server:
			return true
		}
	}
	return false
}
