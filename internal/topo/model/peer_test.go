package model

import (
	"testing"

	"github.com/google/uuid"
)

func peerOf(g *Graph, i uuid.UUID) uuid.UUID { return g.Get(KindPort, i).(*Port).PeerID }

func TestPeeringIsSymmetric(t *testing.T) {
	other := &Port{Meta: Meta{ID: id(40), Name: "other"}, BridgeID: br2}
	setPeer := func(g *Graph, p, peer uuid.UUID) []Op {
		return changed(g, p, func(p *Port) { p.PeerID = peer })
	}
	for _, c := range []struct {
		name    string
		ops     func(*Graph) []Op
		peers   map[uuid.UUID]uuid.UUID
		changes int
	}{
		{"set one side", func(g *Graph) []Op { return setPeer(g, wan, id(40)) },
			map[uuid.UUID]uuid.UUID{wan: id(40), id(40): wan}, 2},
		{"set both sides", func(g *Graph) []Op { return append(setPeer(g, wan, id(40)), setPeer(g, id(40), wan)...) },
			map[uuid.UUID]uuid.UUID{wan: id(40), id(40): wan}, 2},
		{"clear one side", func(g *Graph) []Op { return setPeer(g, lan, uuid.Nil) },
			map[uuid.UUID]uuid.UUID{lan: {}, uplink: {}}, 2},
		{"clear one side, repeat the other", func(g *Graph) []Op { return append(setPeer(g, lan, uuid.Nil), setPeer(g, uplink, lan)...) },
			map[uuid.UUID]uuid.UUID{lan: {}, uplink: {}}, 2},
		{"move one side", func(g *Graph) []Op { return setPeer(g, lan, id(40)) },
			map[uuid.UUID]uuid.UUID{lan: id(40), id(40): lan, uplink: {}}, 3},
		{"swap", func(g *Graph) []Op { return append(setPeer(g, lan, id(40)), setPeer(g, wan, uplink)...) },
			map[uuid.UUID]uuid.UUID{lan: id(40), id(40): lan, uplink: wan, wan: uplink}, 4},
		{"delete one side", func(g *Graph) []Op { return remove(&Port{Meta: Meta{ID: uplink}}) },
			map[uuid.UUID]uuid.UUID{lan: {}}, 2},
		{"delete both sides", func(g *Graph) []Op {
			return append(remove(&Port{Meta: Meta{ID: uplink}}), remove(&Port{Meta: Meta{ID: lan}})...)
		}, nil, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := sampleGraph(t)
			s, err := g.Stage(create(other)...)
			if err != nil {
				t.Fatal(err)
			}
			s.Commit(2)
			if s, err = g.Stage(c.ops(g)...); err != nil {
				t.Fatal(err)
			}
			s.Commit(3)
			for p, want := range c.peers {
				if got := peerOf(g, p); got != want {
					t.Errorf("peer of %s is %s, want %s", p, got, want)
				}
			}
			if len(s.Changes) != c.changes {
				t.Errorf("%d changes, want %d", len(s.Changes), c.changes)
			}
			check(t, g)
		})
	}
}
