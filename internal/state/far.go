package state

import (
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state/arp"
)

// Learnt is where an address was seen: of a tag.MACEntry the Port, of a tag.Neighbour the MAC.
type Learnt struct {
	Port uuid.UUID
	MAC  match.MAC
}

// Learnt returns what this host itself has learnt of what the tag names.
func (t *Tables) Learnt(tg tag.Tag) (l Learnt, ok bool) {
	switch tg.Kind {
	case tag.MACEntry:
		l.Port, ok = t.macs.Lookup(tg.ID, tg.VLAN, tg.MAC)
	case tag.Neighbour:
		k := arp.Key{ID: tg.ID, Addr: tg.Addr, VLAN: tg.VLAN}
		if l.MAC, ok, _ = t.ports.Lookup(k); !ok {
			l.MAC, ok, _ = t.heard.Lookup(k)
		}
	}
	return l, ok
}

// Far returns what another host has learnt.
func (t *Tables) Far(tg tag.Tag) (l Learnt, ok bool) { return t.far.Get(tg) }

// SetFar notes what another host has learnt, later than this one: if this one has learnt otherwise, it forgets that, and what it asks for
// itself has been answered. True: the flows of the tag are out of date.
func (t *Tables) SetFar(tg tag.Tag, l Learnt) (news bool) {
	mine, had := t.Learnt(tg)
	was, known := t.far.Get(tg)
	t.far.Put(tg, l, uuid.Nil, 0)
	if had && mine != l {
		t.forgetLearnt(tg)
		return true
	}
	if !had && tg.Kind == tag.Neighbour {
		t.ports.StopAsking(arp.Key{ID: tg.ID, Addr: tg.Addr, VLAN: tg.VLAN})
	}
	return !had && (!known || was != l)
}

// DropFar notes that no other host knows of it any more. True: the flows of the tag are out of date.
func (t *Tables) DropFar(tg tag.Tag) (news bool) {
	_, known := t.far.Delete(tg)
	_, had := t.Learnt(tg)
	return known && !had
}

func (t *Tables) forgetLearnt(tg tag.Tag) {
	switch tg.Kind {
	case tag.MACEntry:
		t.macs.Drop(tg)
	case tag.Neighbour:
		t.ports.Drop(tg)
		t.heard.Drop(tg)
	}
}
