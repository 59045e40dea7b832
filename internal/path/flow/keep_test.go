package flow

import (
	"slices"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// What entries hold on to is let go of exactly once, however the entry ends.
func TestKeep(t *testing.T) {
	var held []tag.Tag
	tab := New(Config{
		Holds: func(k *match.Key, tg *tag.Tag) bool { return tg.MAC == k.EthSrc },
		Hold: func(tg *tag.Tag) (uint64, bool) {
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

	// Entries whose tags are alike hold on to them together, unless they hold on to different ones.
	tags := []tag.Tag{mine, theirs}
	for port := range uint16(2) {
		k := match.Key{InPort: 1, EthSrc: src, DstPort: port}
		if got := tab.Add(&k, match.EthSrc|match.DstPort, nil, tags, Drop).Kept(); !slices.Equal(got, []tag.Tag{mine}) {
			t.Fatalf("an entry keeps %v", got)
		}
	}
	back := match.Key{InPort: 1, EthSrc: other}
	tab.Add(&back, match.EthSrc, nil, tags, Drop)
	if !slices.Equal(held, []tag.Tag{mine, theirs}) {
		t.Fatalf("held %v, want each once", held)
	}
	for port := range uint16(2) { // another decision takes the place of each
		k := match.Key{InPort: 1, EthSrc: src, DstPort: port}
		if len(held) != 2 {
			t.Fatalf("held %v while an entry is left", held)
		}
		tab.Add(&k, match.EthSrc|match.DstPort, nil, nil, Drop)
	}
	if !slices.Equal(held, []tag.Tag{theirs}) {
		t.Fatalf("held %v, want what the last one does", held)
	}
}

// TestExpect: an entry that is expected is counted for who expects it until its first packet is heard of, in whatever way, or it goes.
func TestExpect(t *testing.T) {
	k := match.Key{InPort: 2, DstPort: 1}
	for name, c := range map[string]struct {
		hear func(*Table)
		came int
	}{
		"a lookup":               {func(tab *Table) { tab.Exact(&k) }, 1},
		"a lookup of another":    {func(tab *Table) { k := k; k.TOS = 4; tab.Wildcard(&k) }, 1},
		"a report":               {func(tab *Table) { tab.Audit(&datapath.FlowInfo{Key: k, Packets: 1, Bytes: 60}) }, 1},
		"a report of no packets": {func(tab *Table) { tab.Audit(&datapath.FlowInfo{Key: k}) }, 0},
		"a look":                 {func(tab *Table) { tab.Peek(&k) }, 0},
		"its end":                {func(tab *Table) { tab.InvalidatePort(2); tab.Tend(100) }, 0},
	} {
		came := 0
		tab := New(Config{Came: func(e Entry) {
			if e.Key().DstPort != 1 {
				t.Errorf("%s: %v has come", name, e.Key())
			}
			came++
		}}, newInstaller(), new(clock.Manual))
		tab.Add(&k, match.DstPort, nil, nil, Stateful).Expect(1)
		_ = tab.Flush()
		if n := tab.Expected(1); n != 1 || tab.Expected(2) != 0 {
			t.Fatalf("%s: %d expected", name, n)
		}
		c.hear(tab)
		c.hear(tab)
		left := 1 - c.came
		if name == "its end" {
			left = 0
		}
		if n := tab.Expected(1); came != c.came || n != left {
			t.Errorf("%s: %d have come, %d expected", name, came, n)
		}
	}
}
