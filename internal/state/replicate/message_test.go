package replicate

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

func genTuple(t *rapid.T, proto uint8) (x match.Tuple) {
	x = match.Tuple{SrcPort: rapid.Uint16().Draw(t, "sport"), DstPort: rapid.Uint16().Draw(t, "dport"), Proto: proto}
	copy(x.Src[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "src"))
	copy(x.Dst[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "dst"))
	return x
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := Header{Kind: Conns, Host: uuid.UUID{1, 2, 15: 3}, Worker: 3, Workers: 8, Seq: rapid.Uint32().Draw(t, "seq")}
		sum := rapid.Uint32().Draw(t, "sum")
		var conns []Conn
		for range rapid.IntRange(0, MaxConns).Draw(t, "conns") {
			proto := rapid.Uint8().Draw(t, "proto")
			conns = append(conns, Conn{Conn: conntrack.Conn{Kind: rapid.SampledFrom([]tag.Kind{tag.Connection, tag.Translation, tag.Destination, tag.Affinity}).Draw(t, "kind"),
				Device: uuid.UUID{rapid.Byte().Draw(t, "device")}, Owner: uuid.UUID{15: 9}, Orig: genTuple(t, proto), Reply: genTuple(t, proto)},
				State: conntrack.State(rapid.IntRange(0, 15).Draw(t, "state")), Moved: rapid.Bool().Draw(t, "moved")})
			conns[len(conns)-1].Idle = time.Duration(rapid.Uint32().Draw(t, "idle")) * time.Millisecond
		}
		frame := Begin(nil, &h, sum)
		for i := range conns {
			frame = AppendConn(frame, &conns[i])
		}
		SetCount(frame, len(conns))
		if len(frame) > 1280 {
			t.Fatalf("%d bytes", len(frame))
		}
		if h.Repeated = rapid.Bool().Draw(t, "repeated"); h.Repeated {
			SetRepeated(frame)
		}
		got, body, err := Parse(append(frame, 0, 0)) // padding is no harm
		h.Count = uint16(len(conns))
		if err != nil || got != h {
			t.Fatalf("%+v, %v; want %+v", got, err, h)
		}
		for i := range conns {
			if c, ok := ConnAt(body, i); !ok || c != conns[i] {
				t.Fatalf("%+v, want %+v", c, conns[i])
			}
		}
		v, bad := packet.Parse(frame, 1)
		if bad != drop.None || v.Key.ConnectionSum() != sum {
			t.Fatalf("as a packet: %v, sum %#x, want %#x", bad, v.Key.ConnectionSum(), sum)
		}
		if len(frame) > headerLen {
			if _, _, err := Parse(frame[:len(frame)-1]); err == nil {
				t.Fatal("a truncated message was accepted")
			}
		}
	})
}

func TestOwned(t *testing.T) {
	h := Header{Kind: Owns, Host: uuid.UUID{1}, Workers: 1}
	frame := Begin(nil, &h, 0)
	for i := range MaxOwned {
		frame = AppendOwned(frame, Owned{Port: uuid.UUID{byte(i)}, Revision: int64(i) << 40})
	}
	SetCount(frame, MaxOwned)
	if len(frame) > 1280 {
		t.Errorf("%d bytes", len(frame))
	}
	got, body, err := Parse(frame)
	if h.Count = MaxOwned; err != nil || got != h {
		t.Fatalf("%+v, %v; want %+v", got, err, h)
	}
	for i := range MaxOwned {
		if o := OwnedAt(body, i); o != (Owned{Port: uuid.UUID{byte(i)}, Revision: int64(i) << 40}) {
			t.Errorf("%+v at %d", o, i)
		}
	}
	if _, _, err := Parse(frame[:len(frame)-1]); err == nil {
		t.Error("a truncated message was accepted")
	}
}

func TestSumFor(t *testing.T) {
	for workers := uint32(1); workers < 9; workers++ {
		for w := range workers {
			dst, src := match.Steer(match.SumFor(w, workers))
			k := match.Key{EthDst: dst, EthSrc: src, EthType: EthType}
			if got := k.ConnectionHash() % workers; got != w {
				t.Errorf("worker %d of %d: %d", w, workers, got)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Begin(nil, &Header{Kind: Hello, Workers: 1}, 0))
	f.Add(AppendAck(Begin(nil, &Header{Kind: Acks, Workers: 1, Count: 1}, 0), 7))
	f.Add(AppendConn(Begin(nil, &Header{Kind: Conns, Workers: 1, Count: 1}, 0), &Conn{}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, body, err := Parse(frame)
		if err != nil {
			return
		}
		for i := range int(h.Count) {
			switch h.Kind {
			case Conns:
				ConnAt(body, i)
			case Acks:
				AckAt(body, i)
			}
		}
	})
}
