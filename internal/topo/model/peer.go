package model

import (
	"fmt"

	"github.com/google/uuid"
)

// followPeers makes peering symmetric: a port that starts to name a peer is named by it, a port that
// ceases to, or is deleted, is forgotten by it. Only what the ops change counts, so
// that an op may repeat the other end's old state without undoing the change.
func (d *draft) followPeers() error {
	n := len(d.changes)
	for _, c := range d.changes[:n] {
		old, now, changed := peering(c)
		if !changed || old == uuid.Nil {
			continue
		}
		other, _ := d.get(Key{KindPort, old}).(*Port)
		self := changedID(c)
		if other != nil && other.PeerID == self && now != old {
			d.setPeer(other, uuid.Nil)
		}
	}
	for _, c := range d.changes[:n] {
		_, now, changed := peering(c)
		if !changed || now == uuid.Nil {
			continue
		}
		self := changedID(c)
		other, _ := d.get(Key{KindPort, now}).(*Port)
		switch {
		case other == nil || now == self || d.tenant != "" && !Visible(other, d.tenant): // validate says so
		case other.PeerID == uuid.Nil:
			d.setPeer(other, self)
		case other.PeerID != self && other.Tenant != d.tenant && d.tenant != "":
			return fieldErr(c.New, "peer", fmt.Sprintf("%s already has a peer", RefTo(other)))
		case other.PeerID != self:
			return fieldErr(c.New, "peer", fmt.Sprintf("%s already has a peer, port %s", RefTo(other), other.PeerID))
		}
	}
	return nil
}

func (d *draft) setPeer(p *Port, peer uuid.UUID) {
	c := Clone(p).(*Port)
	c.PeerID = peer
	d.set(KeyOf(c), c)
}

func changedID(c Change) uuid.UUID {
	if c.New != nil {
		return c.New.GetMeta().ID
	}
	return c.Old.GetMeta().ID
}

// peering tells a port's peer before and after, and whether it differs.
func peering(c Change) (old, now uuid.UUID, changed bool) {
	if p, ok := c.Old.(*Port); ok {
		old = p.PeerID
	}
	if p, ok := c.New.(*Port); ok {
		now = p.PeerID
	}
	return old, now, old != now
}
