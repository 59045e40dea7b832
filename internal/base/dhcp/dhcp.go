// Package dhcp says what a subnet tells its hosts: the native form of what DHCP and router
// advertisements carry. The messages themselves are in dhcp4 and dhcp6, which alone know the
// library of the wire format.
package dhcp

import (
	"net/netip"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// MaxMessage bounds a message that is looked at, in bytes of UDP payload. Clients send some hundreds.
const MaxMessage = 2048

// ServerMAC is where answers come from on a link whose gateway's address is not known. Locally
// administered, the same everywhere: it is never asked for.
var ServerMAC = match.MAC{0x02, 0x64, 0x68, 0x63, 0x70, 0x00}

// ServerLinkLocal is its IPv6 address, made from it (RFC 4291 appendix A).
var ServerLinkLocal = match.Addr{0: 0xfe, 1: 0x80, 9: 0x64, 10: 0x68, 11: 0xff, 12: 0xfe, 13: 0x63, 14: 0x70}

// Subnet is what the hosts of one subnet are told. Immutable.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr // zero: none
	DNS     []netip.Addr
	Domain  string // may be empty
	MTU     int    // bytes of the L3 link; 0: not told
	Lease   uint32 // seconds
	Routes  []Route
	Options []Option // besides the above
}

// Route is a route that hosts install (RFC 3442).
type Route struct {
	Dst netip.Prefix
	Via netip.Addr
}

// Client is a host as the topology knows it.
type Client struct {
	MAC  match.MAC
	Addr netip.Addr // its fixed address; zero: it has none in this family
}

// Verdict is what becomes of a client's message.
type Verdict uint8

// Verdicts.
const (
	Answered  Verdict = iota // there is a reply
	Taken                    // understood, and needs no reply
	NotOurs                  // for another server, or from a client that is not known
	Malformed                // breaks the protocol
)

// Outcome is the answer to one message.
type Outcome struct {
	Verdict Verdict
	Request string     // type of the message, as RFC 2131 and RFC 8415 write it; empty when not known
	Reply   string     // type of the reply, or why there is none
	Addr    netip.Addr // that the reply offers or grants; zero: none
	Payload []byte     // of the reply: the UDP payload
	To      netip.Addr // of the reply; the zero Addr is a broadcast
}

// T1 and T2 are when a client renews and when it rebinds (RFC 2131 section 4.4.5), in seconds.
func (s *Subnet) T1() uint32 { return s.Lease / 2 }

// T2 is when a client whose renewal was not answered asks everybody.
func (s *Subnet) T2() uint32 { return uint32(uint64(s.Lease) * 7 / 8) }
