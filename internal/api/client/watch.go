package client

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Watch implements store.Store.
func (c *Client) Watch(ctx context.Context) (<-chan store.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.closed, cancel)
	resp, err := c.open(ctx, http.MethodGet, "/v1/watch", nil)
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	out := make(chan store.Event)
	go func() {
		defer close(out)
		defer cancel()
		defer stop()
		defer resp.Body.Close()
		dec := json.NewDecoder(resp.Body)
		for {
			var w wire.Event
			if dec.Decode(&w) != nil { // the stream broke or ctx ended
				return
			}
			ev, err := storeEvent(w)
			if err != nil {
				return
			}
			select {
			case out <- ev:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func storeEvent(w wire.Event) (store.Event, error) {
	ev := store.Event{Revision: w.Revision, Last: w.Last, Deleted: w.Type == wire.EventDelete, Synced: w.Type == wire.EventSynced}
	if w.Object == nil {
		return ev, nil
	}
	o, err := toModel(w.Object)
	ev.Object = o
	return ev, err
}
