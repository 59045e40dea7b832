package debug

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Kinds of events.
const (
	EventReady         = "ready"          // the agent has begun, and serves
	EventPortActive    = "port-active"    // an interface became a port
	EventPortInactive  = "port-inactive"  // it is no port any more
	EventPortMoved     = "port-moved"     // from one host to another
	EventStoreFollowed = "store-followed" // also when it is back
	EventStoreAway     = "store-away"
	EventBound         = "bound-reached" // something was not learnt, because its port has no room
	EventRefused       = "refused"       // packets were refused for want of credit
	EventTrouble       = "trouble"       // something is wrong with the host, and should be mended; the subject says what
	EventMended        = "mended"        // it is over, or the agent has mended it itself
	EventLost          = "lost"          // who reads was too slow
)

// Event is something that has happened on the host.
type Event struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Subject string    `json:"subject,omitempty"` // a port, a table
	Text    string    `json:"text"`
}

// serveEvents streams one event a line.
func serveEvents(a Agent, w http.ResponseWriter, r *http.Request) {
	follow, err := strconv.ParseBool(r.FormValue("follow"))
	if err != nil && r.FormValue("follow") != "" {
		problem(w, http.StatusBadRequest, err)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	flush := http.NewResponseController(w)
	flush.Flush()
	enc := json.NewEncoder(w)
	_ = a.Events(r.Context(), follow, func(ev Event) error { // the reader has gone
		if err := enc.Encode(ev); err != nil {
			return err
		}
		return flush.Flush()
	})
}

// Events calls fn for what has happened on the host, as far as the agent remembers it, and, when following, for what happens until ctx ends.
func (c *Client) Events(ctx context.Context, follow bool, fn func(Event) error) error {
	resp, err := c.send(ctx, "GET", "/v1/events?"+url.Values{"follow": {strconv.FormatBool(follow)}}.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for dec.More() {
		var ev Event
		if err := dec.Decode(&ev); err != nil {
			return err
		}
		if err := fn(ev); err != nil {
			return err
		}
	}
	return nil
}
