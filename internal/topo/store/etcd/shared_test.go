package etcd_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// A watch that ends by an error says so, as do the others; one that its caller ends says nothing.
func TestSharedWatchSaysWhyItEnds(t *testing.T) {
	c := start(t)
	var said bytes.Buffer // it is read when the watch, which alone writes to it, has ended
	s, err := etcd.Open(etcd.Config{Endpoints: []string{c.srv.Endpoint()}, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	events, err := s.WatchShared(t.Context(), "learnt/")
	if err != nil {
		t.Fatal(err)
	}
	// What comes next is gone before it is asked for, since nobody has taken the first event yet.
	client := byHand(t, c)
	if _, err := client.Put(t.Context(), "a", "1"); err != nil {
		t.Fatal(err)
	}
	r, err := client.Put(t.Context(), "a", "2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), r.Header.Revision); err != nil {
		t.Fatal(err)
	}
	for range events {
	}
	for _, want := range []string{"level=WARN", "watch of the shared state ends", "prefix=learnt/", "compacted"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, said.String())
		}
	}

	said.Reset()
	events, err = s.WatchShared(t.Context(), "learnt/")
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; !e.Synced {
		t.Fatalf("the first event is %+v", e)
	}
	s.Close()
	for range events {
	}
	if said.Len() > 0 {
		t.Errorf("closed: %s", said.String())
	}
}
