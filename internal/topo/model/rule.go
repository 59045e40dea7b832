package model

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"
)

// Limits of chains.
const (
	MaxGroup     = 10000   // addresses of a group
	MaxPosition  = 1 << 30 // of a rule
	MaxRulePorts = 1000    // ports that a condition lists
)

func (g *Graph) validateAddressGroup(a *AddressGroup) error {
	if len(a.Addresses) > MaxGroup {
		return fieldErr(a, "addresses", fmt.Sprintf("%d are more than %d", len(a.Addresses), MaxGroup))
	}
	seen := make(map[netip.Prefix]bool, len(a.Addresses))
	for i, p := range a.Addresses {
		field := fmt.Sprintf("addresses[%d]", i)
		if reason := badNetwork(p); reason != "" {
			return fieldErr(a, field, reason)
		}
		if seen[p] {
			return fieldErr(a, field, fmt.Sprintf("%s is there twice", p))
		}
		seen[p] = true
	}
	return nil
}

// validateFilters checks what may be nil: the chains that a device or port names, by field.
func (g *Graph) validateFilters(o Object, filters ...filterRef) error {
	for _, f := range filters {
		if f.chain != uuid.Nil {
			if err := g.exists(o, f.field, KindChain, f.chain); err != nil {
				return err
			}
		}
	}
	return nil
}

type filterRef struct {
	field string
	chain uuid.UUID
}

func (g *Graph) validateRule(r *Rule) error {
	if err := g.exists(r, "chain", KindChain, r.ChainID); err != nil {
		return err
	}
	if r.Position < 1 || r.Position > MaxPosition {
		return fieldErr(r, "position", fmt.Sprintf("%d is not within 1 and %d", r.Position, MaxPosition))
	}
	if !slices.Contains(RuleActions, r.Action) {
		return fieldErr(r, "action", fmt.Sprintf("%q is none of %v", r.Action, RuleActions))
	}
	if r.Action == RuleJump {
		if err := g.exists(r, "jump", KindChain, r.JumpID); err != nil {
			return err
		}
		if g.jumpsTo(r.JumpID, r.ChainID, make(map[uuid.UUID]bool)) {
			return fieldErr(r, "jump", fmt.Sprintf("%s leads back to this chain", RefTo(g.Get(KindChain, r.JumpID))))
		}
	}
	if field, reason := g.badCondition(&r.Match); reason != "" {
		return fieldErr(r, "match."+field, reason)
	}
	if field, reason := g.badAction(r); reason != "" {
		return fieldErr(r, field, reason)
	}
	return nil
}

// jumpsTo reports whether a packet in chain from may come to chain to.
func (g *Graph) jumpsTo(from, to uuid.UUID, seen map[uuid.UUID]bool) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	for o := range g.ReferrersOf(Key{KindChain, from}, KindRule) {
		if r := o.(*Rule); r.ChainID == from && r.Action == RuleJump && g.jumpsTo(r.JumpID, to, seen) {
			return true
		}
	}
	return false
}
