// Package packet reads, builds and rewrites frames without copying them.
package packet

import "github.com/viaduct-net/viaduct/internal/base/match"

// EtherTypes (IANA, IEEE 802).
const (
	EthTypeIPv4 uint16 = 0x0800
	EthTypeARP  uint16 = 0x0806
	EthTypeVLAN uint16 = 0x8100
	EthTypeQinQ uint16 = 0x88a8
	EthTypeIPv6 uint16 = 0x86dd
)

// IP protocol numbers (IANA).
const (
	ProtoICMP   uint8 = 1
	ProtoTCP    uint8 = 6
	ProtoUDP    uint8 = 17
	ProtoICMPv6 uint8 = 58
	ProtoSCTP   uint8 = 132
)

// View is what a parsed frame looks like: its key and where its headers
// are. Offsets count from the start of Frame; an offset of 0 means that the
// header is absent. A View aliases the frame it was made from.
type View struct {
	Frame []byte
	Key   match.Key
	L3    int   // IPv4, IPv6 or ARP header
	L4    int   // transport header; absent in later fragments
	TTL   uint8 // TTL or hop limit; 0 when not IP
	DF    bool  // IPv4 don't-fragment; always true for IPv6
	L3Len int   // length of the IP packet by its own header (0 when not IP)
}

// GSO describes a frame that stands for several segments, as a VM's stack or its
// tap hands it over; the zero value is an ordinary frame.
type GSO struct {
	Size uint16 // payload bytes per segment (MSS); 0: no segmentation
	Segs uint16
}
