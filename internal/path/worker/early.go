package worker

import (
	"slices"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/prep"
)

// early are packets that would be dropped, and perhaps only because the connection is not known that they answer, at a host that others tell of
// connections: the message may have been lost, or be late. They wait until some message has told of something, or for the time in which a lost one is
// sent again; then they are judged as they come.
type early struct {
	list []waiting // oldest first
	news bool      // a message has told of something
	late bool      // what is at hand has waited long enough

	until int64 // of the packet at hand, which has waited; 0: it has not
}

type waiting struct {
	*datapath.Miss
	until int64
}

const (
	earlyMax   = 32 // of a worker: beyond, they are judged at once
	earlyShare = 8  // of them, those of one port: so that one which sends much that is forbidden leaves room for the others
	earlyWait  = int64(150 * time.Millisecond)
)

// early keeps a packet that is to be dropped, if it may be early.
func (w *Worker) early(m *datapath.Miss, v *packet.View, why drop.Reason) (kept bool) {
	e := &w.peers.early
	if e.late || w.ports.Tunnel() == 0 || len(e.list) >= earlyMax || !w.mayAnswer(v, why) {
		return false
	}
	n := 0
	for i := range e.list {
		if e.list[i].Key.InPort == m.Key.InPort {
			n++
		}
	}
	if n >= earlyShare {
		return false
	}
	w.explainEarly()
	until := e.until
	if until == 0 {
		until = w.now + earlyWait
	}
	e.list = append(e.list, waiting{m, until})
	w.counts.Waiting++
	return true
}

// mayAnswer reports whether what the simulation at hand has dropped may belong to a connection that is not known, and pass if it were.
func (w *Worker) mayAnswer(v *packet.View, why drop.Reason) bool {
	switch why {
	case drop.ConnInvalid:
		return true
	case drop.GroupDrop, drop.FilterDrop, drop.FilterReject, drop.LocalNotTaken:
	default:
		return false
	}
	if v.TCPFlags()&(packet.FlagSYN|packet.FlagACK) == packet.FlagSYN {
		return false // it begins one
	}
	return slices.ContainsFunc(w.sim.Tags, func(t tag.Tag) bool { return t.Kind.IsConnection() && !w.tables.HasConnection(t) })
}

// judgeEarly takes early packets through the stages again when there is news, or time is up.
func (w *Worker) judgeEarly() {
	e := &w.peers.early
	if len(e.list) == 0 {
		e.news = false
		return
	}
	n := 0
	for n < len(e.list) && e.list[n].until <= w.now {
		n++
	}
	e.late = true
	w.rejudge(n)
	e.late = false
	if e.news {
		e.news = false
		w.rejudge(len(e.list))
	}
}

func (w *Worker) rejudge(n int) {
	if n == 0 {
		return
	}
	e := &w.peers.early
	for range n {
		x := e.list[0]
		e.list = slices.Delete(e.list, 0, 1)
		e.until = x.until
		w.woken = append(w.woken[:0], prep.Woken{Miss: x.Miss})
		w.restart(w.woken)
	}
	e.until = 0
}

// forgetEarly ends those of a datapath port that is gone.
func (w *Worker) forgetEarly(no uint32) {
	e := &w.peers.early
	e.list = slices.DeleteFunc(e.list, func(x waiting) bool {
		if x.Key.InPort != no {
			return false
		}
		w.giveUp(x.Miss, drop.NotBound)
		return true
	})
}
