package model

import (
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/google/uuid"
)

// MaxTunnelKey is the highest key of a port: of the 24 bits that VXLAN has (RFC 7348 section 5), all ones carry the state
// that hosts tell each other.
const MaxTunnelKey = 1<<24 - 2

// MaxTunnels is how many zones a host is in at most.
const MaxTunnels = 16

func tunnelKey(n uint32) uniqueKey { return uniqueKey{field: "tunnel_key", kind: KindPort, n: int(n)} }

// Inherit takes over from the stored object what the system has chosen and o does not say.
func Inherit(o, stored Object) {
	if key, have := keyed(o), keyed(stored); key != nil && have != nil && *key == 0 {
		*key = *have
	}
	if b, ok := o.(*Binding); ok {
		b.inherit(stored)
	}
}

// keyed is where an object has its tunnel key; nil for what has none.
func keyed(o Object) *uint32 {
	switch o := o.(type) {
	case *Port:
		return &o.TunnelKey
	case *LoadBalancer:
		return &o.TunnelKey
	}
	return nil
}

// chooseTunnelKey gives an object a key that is free: the one that follows from its id, or the next. When there is none
// left it stays without, and is refused.
func (d *draft) chooseTunnelKey(id uuid.UUID) uint32 {
	h := fnv.New32a()
	h.Write(id[:])
	first := h.Sum32() % MaxTunnelKey
	for i := range uint32(MaxTunnelKey) {
		n := (first+i)%MaxTunnelKey + 1
		owner, taken := d.graph.unique[tunnelKey(n)]
		if other, ok := d.keys[n]; (!taken || owner == id) && (!ok || other == id) {
			return n
		}
	}
	return 0
}

func validateTunnelKey(old, o Object) error {
	key := *keyed(o)
	if key < 1 || key > MaxTunnelKey {
		return fieldErr(o, "tunnel_key", fmt.Sprintf("%d is not within 1 and %d: leave it out", key, MaxTunnelKey))
	}
	if had := keyed(old); had != nil && *had != 0 && *had != key {
		return fieldErr(o, "tunnel_key", fmt.Sprintf("is %d and cannot change: leave it out", *had))
	}
	return nil
}

func (g *Graph) validateTunnels(h *Host) error {
	if len(h.Tunnels) > MaxTunnels {
		return fieldErr(h, "tunnels", fmt.Sprintf("%d are more than %d", len(h.Tunnels), MaxTunnels))
	}
	for i, t := range h.Tunnels {
		at := fmt.Sprintf("tunnels[%d]", i)
		if err := g.exists(h, at+".zone", KindZone, t.ZoneID); err != nil {
			return err
		}
		if reason := badUnicast(t.Address); reason != "" {
			return fieldErr(h, at+".address", reason)
		}
		same := func(o TunnelEnd) bool { return o.ZoneID == t.ZoneID }
		if slices.IndexFunc(h.Tunnels, same) < i {
			return fieldErr(h, at+".zone", "is there twice")
		}
	}
	return nil
}

// TunnelEnd is the address by which to reach h from a host with these ends; false when they share no zone.
func (h *Host) TunnelEnd(from *Host) (end TunnelEnd, ok bool) {
	for _, mine := range from.Tunnels {
		if i := slices.IndexFunc(h.Tunnels, func(t TunnelEnd) bool { return t.ZoneID == mine.ZoneID && t.Address.Is4() == mine.Address.Is4() }); i >= 0 {
			return h.Tunnels[i], true
		}
	}
	return TunnelEnd{}, false
}
