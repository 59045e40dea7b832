package tag

import (
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

func TestHash(t *testing.T) {
	tu := match.Tuple{Src: match.Addr{1}, Dst: match.Addr{2}, SrcPort: 3, DstPort: 4, Proto: 6}
	back := tu.Reverse()
	same, other := Of(Connection, uuid.UUID{1}, &tu), Of(Connection, uuid.UUID{1}, &back)
	if same.Hash() != other.Hash() {
		t.Error("the directions of a connection differ")
	}
	if back := other.Tuple(); back != tu.Reverse() {
		t.Errorf("%v is not %v", back, tu.Reverse())
	}
	seen := map[uint64]Tag{}
	tu.SrcPort, tu.DstPort = tu.DstPort, tu.SrcPort
	for _, tg := range []Tag{
		same, Of(Connection, uuid.UUID{1}, &tu), Of(Translation, uuid.UUID{1}, &back), Of(Connection, uuid.UUID{2}, &back), Of(Affinity, uuid.UUID{1}, &back), Of(Affinity, uuid.UUID{2}, &back),
		{Kind: Device, ID: uuid.UUID{1}}, {Kind: MACEntry, ID: uuid.UUID{1}}, {Kind: MACEntry, ID: uuid.UUID{1}, VLAN: 1},
		{Kind: MACEntry, ID: uuid.UUID{1}, MAC: match.MAC{1}}, {Kind: Neighbour, ID: uuid.UUID{1}, Addr: match.Addr{1}}, {Kind: DPPort, N: 1},
	} {
		if was, ok := seen[tg.Hash()]; ok {
			t.Errorf("%v has the hash of %v", tg, was)
		}
		seen[tg.Hash()] = tg
	}
}

func TestDigest(t *testing.T) {
	a, b := Tag{Kind: Device, ID: uuid.UUID{1}}, Tag{Kind: Device, ID: uuid.UUID{2}}
	if Digest([]Tag{a, b}) != Digest([]Tag{a, b}) || Digest([]Tag{a, b}) == Digest([]Tag{b, a}) || Digest([]Tag{a}) == Digest([]Tag{a, a}) {
		t.Error("lists that differ have one digest, or one has two")
	}
	if !Same(nil, nil) || !Same([]Tag{a, b}, []Tag{a, b}) || Same([]Tag{a, b}, []Tag{b, a}) || Same([]Tag{a}, []Tag{a, a}) || Same([]Tag{a}, nil) {
		t.Error("lists that differ are the same, or equal ones are not")
	}
}
