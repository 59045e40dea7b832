package agent

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/offheap"
)

// maxEvents bounds how many events are kept for who asks later; who reads too slowly is told how many it missed.
const maxEvents = 1024

// events are what has happened on the host, the last maxEvents. Safe for concurrent use.
type events struct {
	mu   sync.Mutex
	ring [maxEvents]debug.Event
	next uint64        // number of the next event, from 0
	news chan struct{} // closed, and replaced, by the next event
}

func newEvents() *events { return &events{news: make(chan struct{})} }

func (e *events) add(kind, subject, format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ring[e.next%maxEvents] = debug.Event{Seq: e.next, Time: time.Now(), Kind: kind, Subject: subject, Text: fmt.Sprintf(format, args...)}
	e.next++
	close(e.news)
	e.news = make(chan struct{})
}

// since copies the events from number from on, after how many that are gone, and gives a channel that the next one closes.
func (e *events) since(from uint64) (list []debug.Event, lost uint64, news <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.next > maxEvents && from < e.next-maxEvents {
		lost = e.next - maxEvents - from
		from += lost
	}
	for ; from < e.next; from++ {
		list = append(list, e.ring[from%maxEvents])
	}
	return list, lost, e.news
}

// Events implements debug.Agent.
func (a *Agent) Events(ctx context.Context, follow bool, fn func(debug.Event) error) error {
	for from := uint64(0); ; {
		list, lost, news := a.events.since(from)
		from += lost
		if lost > 0 && from > lost { // not at the first look: what was before is history
			if err := fn(debug.Event{Seq: from, Time: time.Now(), Kind: debug.EventLost, Text: fmt.Sprintf("%d events were not read in time", lost)}); err != nil {
				return err
			}
		}
		for _, ev := range list {
			if err := fn(ev); err != nil {
				return err
			}
			from = ev.Seq + 1
		}
		if !follow {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil
		}
	}
}

// notice makes events of what only counters tell, once a second.
func (a *Agent) notice(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	var following bool
	refused := make(map[string]uint64)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		if now := a.mirror.Stats().Following; now != following {
			following = now
			if now {
				a.events.add(debug.EventStoreFollowed, "", "the store is followed, at revision %d", a.mirror.Snapshot().Revision)
			} else {
				a.events.add(debug.EventStoreAway, "", "the store is away: the last known network stays")
			}
		}
		a.checkMemory()
		a.checkTables(offheap.Refused())
		st := a.tables.Stats()
		grew := func(kind, subject, text string, n uint64) {
			if d := n - refused[kind+subject]; d > 0 && n >= refused[kind+subject] {
				a.events.add(kind, subject, text, d)
			}
			refused[kind+subject] = n
		}
		grew(debug.EventBound, "mac", "%d MAC addresses were not learnt: their port has no room", st.RefusedMACs)
		grew(debug.EventBound, "neighbour", "%d neighbours were not learnt: their port has no room", st.RefusedNeighbours)
		grew(debug.EventBound, "connection", "%d connections were not made: their port has no room", st.RefusedConnections)
		for name, n := range a.refused() {
			grew(debug.EventRefused, name, "%d packets were refused: the port sends new flows faster than its share", n)
		}
	}
}

// refused is how many packets of each port the datapath has refused for want of credit; by the port's name, or its id when it has none. No
// worker is asked: that would wake it once for each port.
func (a *Agent) refused() map[string]uint64 {
	ports := a.ports.all()
	refused := make(map[string]uint64, len(ports)+1)
	add := func(name string, no uint32) {
		if st, err := a.dp.Stats(no); err == nil { // else it has just gone
			refused[name] = st.Drops[drop.NoCredit]
		}
	}
	snap := a.mirror.Snapshot()
	for id, port := range ports {
		name := id.String()
		if p := snap.Port(id); p != nil {
			name = cmp.Or(p.Name, name)
		}
		add(name, port.No)
	}
	if port, ok := a.ports.getTunnel(); ok {
		add("tunnel", port.No)
	}
	return refused
}
