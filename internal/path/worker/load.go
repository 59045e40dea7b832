package worker

import (
	"slices"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// Packets that devices made do not wait in the Lot, where ports have their shares. But one that needs what is not known of the network is
// kept until it is loaded, which is soon: else the first ARP request across a network would be lost each time.

// maxLate bounds how many there are, and lateTime how long they are kept, in ns.
const (
	maxLate  = 64
	lateTime = 2e9
)

type latePacket struct {
	madePacket
	owner    uuid.UUID
	wait     tag.Tag
	deadline int64
}

// later keeps a packet that a device made until what it waits for is there, if there is room.
func (w *Worker) later(p madePacket) (kept bool) {
	if !w.resolve(w.sim.Wait, w.sim.Lease, p.depth+1) || len(w.loading) == maxLate {
		return false
	}
	p.frame = slices.Clone(p.frame)
	w.loading = append(w.loading, latePacket{p, w.made.owner, w.sim.Wait, w.now + lateTime})
	w.counts.Waiting++
	return true
}

// wakeLate goes on with those that wait for one of the tags.
func (w *Worker) wakeLate(tags []tag.Tag) {
	if len(w.loading) == 0 {
		return
	}
	late := w.loading
	w.loading = nil
	for i, p := range late {
		if !slices.Contains(tags, p.wait) {
			w.loading = append(w.loading, late[i])
			continue
		}
		w.counts.Waiting--
		w.counts.In-- // it is counted once more
		w.counts.Made--
		w.made.owner = p.owner
		w.made.add(p.port, p.frame, p.depth)
		w.runMade()
	}
}

// expireLate ends those that have waited too long.
func (w *Worker) expireLate() {
	for len(w.loading) > 0 && w.loading[0].deadline <= w.now {
		w.loading = slices.Delete(w.loading, 0, 1)
		ingress := w.ingress
		w.ingress = 0
		w.counts.Waiting--
		w.drop(drop.ParkTimeout)
		w.ingress = ingress
	}
}

// Unused returns those of some parts of the network on which none of the worker's flows depend, in the memory of ts; of the others it calls
// used. Call it through Do.
func (w *Worker) Unused(ts []view.Thing, used func(view.Thing)) []view.Thing {
	return slices.DeleteFunc(ts, func(t view.Thing) bool {
		at := t.Tag()
		in := w.flows.Depends(at.Hash())
		if in {
			used(t)
		} else {
			w.recall.changed(at.Hash()) // when it is not held any more, nobody tells of its changes
		}
		return in
	})
}
