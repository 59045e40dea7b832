// Package action describes what is done to a packet, in order. A simulation
// yields Virtual actions, whose outputs are virtual ports; package xlate turns
// them into Physical ones, whose outputs are datapath ports and tunnels.
package action

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Op says what an Action does and which of its fields count.
type Op uint8

const (
	_          Op = iota
	SetEthSrc     // MAC
	SetEthDst     // MAC
	SetSrc        // Addr; the packet's family must be the address's
	SetDst        // Addr
	SetTOS        // Value: ToS or traffic class; ECN bits included
	SetSrcPort    // Value; TCP, UDP, SCTP
	SetDstPort    // Value; ICMP echo: identifier
	DecTTL        // TTL or hop limit less 1; never applied to a TTL of 1 (a miss instead)
	PushVLAN      // Value: TCI without VLANPresent
	PopVLAN       // removes the outer tag
	Forward       // VPort (virtual only)
	Output        // Port: datapath port (physical only)
	Tunnel        // Port: the tunnel's datapath port, Addr: peer, Key: VNI (physical only)
	CheckLen      // Value: of a longer IP packet, in bytes on the wire, nothing is known (a miss instead); only in front of all others
)

// Sets reports whether the op writes a value, so that a second one before the next output makes the first pointless.
func (o Op) Sets() bool { return o >= SetEthSrc && o <= SetDstPort }

// Action is one step. Effects accumulate: a rewrite is seen by every
// later output, never by an earlier one.
type Action struct {
	Op    Op
	MAC   match.MAC
	Value uint16
	Port  uint32
	Key   uint32
	Addr  match.Addr
	VPort uuid.UUID
}

// Virtual is a list whose outputs are Forward. Empty: drop.
type Virtual []Action

// Physical is a list whose outputs are Output and Tunnel. Empty: drop.
type Physical []Action

// TTLCost is the number of DecTTL actions: a packet needs a TTL above it.
func (p Physical) TTLCost() (n uint8) {
	for i := range p {
		if p[i].Op == DecTTL {
			n++
		}
	}
	return n
}

// MaxLen is what CheckLen says: how long an IP packet may be, in bytes, and each of the segments that an offloaded one stands for;
// 0: as long as it likes.
func (p Physical) MaxLen() uint16 {
	if len(p) > 0 && p[0].Op == CheckLen {
		return p[0].Value
	}
	return 0
}
