package native

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// ndjson is JSON, one value a line.
const ndjson = "application/x-ndjson"

func registerWatch(api huma.API, c Config) {
	responses := problemResponses(api, 503)
	responses["200"] = &huma.Response{
		Description: "One event a line, without end: the state now (put), synced, and every change after it.",
		Content: map[string]*huma.MediaType{ndjson: {
			Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[wire.Event](), true, "Event"),
		}},
	}
	huma.Register(api, huma.Operation{
		OperationID: "watch", Summary: "Watch everything", Tags: []string{"changes"},
		Description: "A stream that ends has been cut: watch again and compare, as changes in between are not repeated one by one.",
		Method:      http.MethodGet, Path: "/v1/watch", Responses: responses,
	}, func(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
		ctx, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(c.Context, cancel)
		events, err := c.Store.Watch(ctx)
		if err != nil {
			stop()
			cancel()
			return nil, problem(err, nowhere)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer drain(cancel, events)
			defer stop()
			hc.SetHeader("Content-Type", ndjson)
			_, w := humago.Unwrap(hc)
			stream(w, events)
		}}, nil
	})
}

// drain ends a watch. The store may be sending its next event, so what is left is read.
func drain(cancel func(), events <-chan store.Event) {
	cancel()
	for range events {
	}
}

// stream writes events until there are no more or the client is gone. It flushes when
// no further event is ready, so that a long initial state does not go out line by line.
func stream(w http.ResponseWriter, events <-chan store.Event) {
	enc := json.NewEncoder(w)
	flush := http.NewResponseController(w).Flush
	for ev := range events {
		if enc.Encode(wireEvent(ev)) != nil {
			return
		}
		if len(events) == 0 && flush() != nil {
			return
		}
	}
}

func wireEvent(ev store.Event) wire.Event {
	w := wire.Event{Type: wire.EventPut, Revision: ev.Revision, Last: ev.Last}
	switch {
	case ev.Synced:
		w.Type = wire.EventSynced
	case ev.Deleted:
		w.Type = wire.EventDelete
	}
	if ev.Object != nil {
		w.Object = wire.Wrap(wire.FromModel(ev.Object))
	}
	return w
}
