package mirror

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// markCounter counts the marks that a feed is asked for.
type markCounter struct {
	store.Feed
	n int
}

func (f *markCounter) Mark() { f.n++ }

// A mark is asked for at once while nothing is known, and by whoever goes step by step; otherwise changes share one.
func TestChangesShareMarks(t *testing.T) {
	f, p := &markCounter{}, NewPart(uuid.Max).part
	p.feed, p.soon = f, time.NewTimer(time.Hour)
	defer p.soon.Stop()
	if p.markSoon(); f.n != 1 {
		t.Errorf("%d marks while nothing is known", f.n)
	}
	p.upTo = 5
	if p.markSoon(); f.n != 1 {
		t.Errorf("%d marks, at once, of a change that nobody waits for", f.n)
	}
	select {
	case <-p.soon.C:
	case <-time.After(time.Minute):
		t.Error("nor is one asked for later")
	}
	if p.soon = nil; f.n != 1 {
		t.Errorf("%d marks", f.n)
	}
	if p.markSoon(); f.n != 2 {
		t.Errorf("%d marks in steps", f.n)
	}
}
