package view

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// ThingKind is a sort of what a snapshot holds.
type ThingKind uint8

// Kinds of things, each a map of Snapshot.
const (
	_ ThingKind = iota
	ThingPort
	ThingBridge
	ThingRouter
	ThingChain
	ThingGroup // an address group, or a security group's members
	ThingSecurity
	ThingBalancer
)

var thingNames = [...]string{"", "port", "bridge", "router", "chain", "group", "security_group", "load_balancer"}

func (k ThingKind) String() string { return thingNames[k] }

// ParseThingKind is the inverse of String; 0: there is no such kind.
func ParseThingKind(s string) ThingKind {
	for i, n := range thingNames {
		if n == s && i > 0 {
			return ThingKind(i)
		}
	}
	return 0
}

// Thing names something that a snapshot may hold.
type Thing struct {
	Kind ThingKind
	ID   uuid.UUID
}

// Tag is what is told to have changed when it comes or goes, or becomes known not to exist.
func (t Thing) Tag() tag.Tag {
	switch t.Kind {
	case ThingPort:
		return tag.Tag{Kind: tag.Port, ID: t.ID}
	case ThingBridge, ThingRouter:
		return tag.Tag{Kind: tag.Device, ID: t.ID}
	case ThingChain, ThingSecurity:
		return tag.Tag{Kind: tag.Chain, ID: t.ID}
	case ThingGroup:
		return tag.Tag{Kind: tag.Group, ID: t.ID}
	case ThingBalancer:
		return tag.Tag{Kind: tag.Balancer, ID: t.ID}
	}
	return tag.Tag{}
}

// Unknown reports whether a thing that the snapshot has not may exist nevertheless. Nothing is unknown to a snapshot of the whole network.
func (s *Snapshot) Unknown(t Thing) bool {
	if !s.Partial {
		return false
	}
	_, absent := s.Absent[t]
	return !absent
}
