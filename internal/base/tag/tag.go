// Package tag names the things that a flow depends on. When one of them changes, exactly
// the flows that carry its tag are invalidated. A thing that was looked for and
// not found has the same tag as when it is there.
package tag

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"unsafe"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Kind is what sort of thing a Tag names.
type Kind uint8

const (
	_           Kind = iota
	Device           // a bridge or router: ID
	Port             // a virtual port: ID
	Route            // a destination looked up in a router: ID router, Addr destination
	MACEntry         // a bridge's (MAC, VLAN) entry, absent or not: ID bridge, MAC, VLAN
	Neighbour        // a router port's ARP or ND entry, or a bridge's: ID port or bridge, Addr, VLAN of a bridge
	Flood            // the set of ports a bridge floods to: ID bridge
	DPPort           // a datapath port: N
	Binding          // where a virtual port is bound, or that it is not: ID port
	Chain            // a chain's rules: ID
	Group            // an address group: ID; with Addr, whether that address is listed in it
	Connection       // a tracked connection, absent or not: ID device, and a direction (see Of)
	Translation      // one whose source is translated, absent or not: likewise
	Floating         // an address looked up among a router port's floating IPs: ID port, Addr
	Ports            // the ports leased for translation: ID device, Addr
	Destination      // a connection whose destination is translated, absent or not: as Connection
	Host             // where another host is reached, or that it is not: ID
	Balancer         // a load balancer, its members excepted: ID
	Members          // those of a load balancer that get new connections, and their weights: ID
	Member           // whether a member of a load balancer serves: ID load balancer, and where the member is (see OfMember)
	Fragment         // the first fragment of a datagram, which is waited for: ID port, Addr source, Peer destination, Proto, N identification
	Affinity         // a client's member, absent or not: ID load balancer, as Connection
)

var kindNames = [...]string{"", "device", "port", "route", "mac", "neighbour", "flood", "dp_port", "binding", "chain", "group", "connection", "translation", "floating", "ports", "destination", "host", "balancer", "members", "member", "fragment", "affinity"}

// IsConnection reports a kind that Of makes tags of.
func (k Kind) IsConnection() bool { return k == Connection || k == Translation || k == Destination }

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Tag names one thing. Unused fields are zero. Comparable.
type Tag struct {
	Kind  Kind
	MAC   match.MAC
	Proto uint8
	VLAN  uint16
	pad   uint16 // always 0, so that all of a tag's memory says what it is
	N     uint32
	ID    uuid.UUID
	Addr  match.Addr
	Peer  match.Addr
}

// Of names a connection (kind Connection or Translation) of a device by one of its directions.
func Of(k Kind, device uuid.UUID, t *match.Tuple) Tag {
	return Tag{Kind: k, ID: device, Addr: t.Src, Peer: t.Dst, N: uint32(t.SrcPort)<<16 | uint32(t.DstPort), Proto: t.Proto}
}

// OfMember names a member of a load balancer by its address and port.
func OfMember(lb uuid.UUID, a match.Addr, port uint16) Tag {
	return Tag{Kind: Member, ID: lb, Addr: a, N: uint32(port)}
}

// Tuple is the direction that Of was given.
func (t *Tag) Tuple() match.Tuple {
	return match.Tuple{Src: t.Addr, Dst: t.Peer, SrcPort: uint16(t.N >> 16), DstPort: uint16(t.N), Proto: t.Proto}
}

var seed, seed2 = maphash.MakeSeed(), maphash.MakeSeed()

// Hash is a 64-bit digest that indexes keep in place of the tag. A collision
// invalidates a flow too many, never one too few. It differs between runs. Both directions of a connection that is not
// translated have the same: they come and go together.
func (t *Tag) Hash() uint64 {
	o := *t
	if t.Kind.IsConnection() && t.backwards() {
		o.Addr, o.Peer, o.N = t.Peer, t.Addr, t.N<<16|t.N>>16
	}
	return maphash.Bytes(seed, (*[size]byte)(unsafe.Pointer(&o))[:])
}

const size = 64

var _ [size]byte = [unsafe.Sizeof(Tag{})]byte{}

// backwards says which of two directions is the other's reverse.
func (t *Tag) backwards() bool {
	if c := bytes.Compare(t.Addr[:], t.Peer[:]); c != 0 {
		return c > 0
	}
	return t.N>>16 > t.N&0xffff
}

// Digest is of a list of tags: 128 bits, that lists which differ do not share. It differs between runs.
func Digest(tags []Tag) [2]uint64 {
	if len(tags) == 0 {
		return [2]uint64{}
	}
	b := memory(tags)
	return [2]uint64{maphash.Bytes(seed, b), maphash.Bytes(seed2, b)}
}

// Same reports whether two lists are equal.
func Same(a, b []Tag) bool { return len(a) == len(b) && bytes.Equal(memory(a), memory(b)) }

func memory(tags []Tag) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(tags))), len(tags)*size)
}

// String is kind:id with whatever else counts for the kind.
func (t Tag) String() string {
	switch t.Kind {
	case DPPort:
		return fmt.Sprintf("dp_port:%d", t.N)
	case MACEntry:
		return fmt.Sprintf("mac:%s/%d/%s", t.ID, t.VLAN, t.MAC)
	case Member:
		return fmt.Sprintf("member:%s/%s:%d", t.ID, t.Addr, t.N)
	case Connection, Translation, Destination, Affinity:
		return fmt.Sprintf("%s:%s/%d/%s:%d>%s:%d", t.Kind, t.ID, t.Proto, t.Addr, t.N>>16, t.Peer, t.N&0xffff)
	case Fragment:
		return fmt.Sprintf("fragment:%s/%d/%s>%s/%d", t.ID, t.Proto, t.Addr, t.Peer, t.N)
	case Group:
		if t.Addr != (match.Addr{}) {
			return fmt.Sprintf("group:%s/%s", t.ID, t.Addr)
		}
	case Route, Neighbour, Floating, Ports:
		if t.VLAN != 0 {
			return fmt.Sprintf("%s:%s/%d/%s", t.Kind, t.ID, t.VLAN, t.Addr)
		}
		return fmt.Sprintf("%s:%s/%s", t.Kind, t.ID, t.Addr)
	}
	return fmt.Sprintf("%s:%s", t.Kind, t.ID)
}
