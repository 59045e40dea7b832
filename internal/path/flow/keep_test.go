package flow

import (
	"slices"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// What entries hold on to is let go of exactly once, however the entry ends.
func TestKeep(t *testing.T) {
	var held []tag.Tag
	tab := New(Config{
		Hold: func(k *match.Key, tg *tag.Tag) (uint64, bool) {
			if tg.MAC != k.EthSrc {
				return 0, false
			}
			held = append(held, *tg)
			return 42, true
		},
		Release: func(k *tag.Tag, handle uint64) {
			i := slices.Index(held, *k)
			if i < 0 || handle != 42 {
				t.Fatalf("%v is let go of with handle %d, but was not held", k, handle)
			}
			held = slices.Delete(held, i, i+1)
		},
	}, newInstaller(), new(clock.Manual))
	src, other := match.MAC{2, 1}, match.MAC{2, 2}
	mine, theirs := tag.Tag{Kind: tag.MACEntry, MAC: src}, tag.Tag{Kind: tag.MACEntry, MAC: other}
	k := match.Key{InPort: 1, EthSrc: src, EthDst: other}
	tab.Add(&k, match.EthSrc, nil, []tag.Tag{mine, theirs, mine}, Drop)
	if !slices.Equal(held, []tag.Tag{mine}) {
		t.Fatalf("held %v, want the source's entry once", held)
	}
	tab.Add(&k, match.EthSrc, nil, []tag.Tag{mine}, Drop) // replaces the first
	if !slices.Equal(held, []tag.Tag{mine}) {
		t.Fatalf("after it was replaced: held %v", held)
	}
	tab.Invalidate(theirs.Hash())
	if len(held) != 1 {
		t.Fatal("let go of by a tag that the new entry has not")
	}
	tab.Invalidate(mine.Hash())
	if len(held) != 0 {
		t.Fatalf("still held: %v", held)
	}
}
