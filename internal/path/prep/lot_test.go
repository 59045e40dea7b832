package prep

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// miss makes packet number no of a flow.
func miss(port uint32, flow uint16, no int64) *datapath.Miss {
	m := &datapath.Miss{Time: no}
	m.Key.InPort, m.Key.DstPort = port, flow
	m.Key.EthType, m.Key.Proto = packet.EthTypeIPv4, packet.ProtoTCP
	return m
}

func waitFor(n uint32) tag.Tag { return tag.Tag{Kind: tag.Neighbour, N: n} }

// text is what a test compares: port.flow#number, duplicates with a plus.
func text(ws []Woken) (s []string) {
	for _, w := range ws {
		t := fmt.Sprintf("%d.%d#%d", w.Miss.Key.InPort, w.Miss.Key.DstPort, w.Miss.Time)
		if w.Dup {
			t = "+" + t
		}
		s = append(s, t)
	}
	return s
}

func want(t *testing.T, got []Woken, want ...string) {
	t.Helper()
	if !slices.Equal(text(got), want) {
		t.Fatalf("got %v, want %v", text(got), want)
	}
}

func hold(t *testing.T, l *Lot, m *datapath.Miss) *datapath.Miss {
	t.Helper()
	held, dropped := l.Hold(m)
	if !held {
		t.Fatalf("%v is not held", m.Key)
	}
	return dropped
}

func TestWake(t *testing.T) {
	l := NewLot(Config{})
	if held, _ := l.Hold(miss(1, 1, 0)); held {
		t.Fatal("held though nothing is parked")
	}
	l.Park(miss(1, 1, 1), waitFor(1), 0)
	l.Park(miss(2, 1, 2), waitFor(2), 0)
	l.Park(miss(2, 2, 3), waitFor(1), 0)
	hold(t, l, miss(1, 1, 4))
	hold(t, l, miss(2, 2, 5))
	hold(t, l, miss(1, 1, 6))
	if held, _ := l.Hold(miss(1, 3, 7)); held {
		t.Fatal("another flow is held")
	}
	want(t, l.Wake(waitFor(9), nil))
	want(t, l.Wake(waitFor(1), nil), "1.1#1", "+1.1#4", "+1.1#6", "2.2#3", "+2.2#5")
	if l.Parked() != 1 || l.Held() != 0 {
		t.Fatalf("%d parked, %d held", l.Parked(), l.Held())
	}
	// It may have to wait again.
	if !l.Park(miss(1, 1, 1), waitFor(2), 0) {
		t.Fatal("refused")
	}
	want(t, l.Wake(waitFor(2), nil), "2.1#2", "1.1#1")
}

func TestExpire(t *testing.T) {
	var c clock.Manual
	l := NewLot(Config{})
	if _, ok := l.Deadline(); ok {
		t.Fatal("a deadline of nothing")
	}
	l.Park(miss(1, 1, 1), waitFor(1), c.Now())
	c.Advance(2 * time.Second)
	l.Park(miss(1, 2, 2), waitFor(1), c.Now())
	hold(t, l, miss(1, 1, 3))
	c.Advance(3*time.Second - 1)
	want(t, l.Expire(c.Now(), nil))
	c.Advance(1)
	if at, ok := l.Deadline(); !ok || at != c.Now() {
		t.Fatalf("deadline %d", at)
	}
	want(t, l.Expire(c.Now(), nil), "1.1#1", "+1.1#3")
	want(t, l.Wake(waitFor(1), nil), "1.2#2")
	c.Advance(time.Hour)
	want(t, l.Expire(c.Now(), nil))
}

func TestParkOverflow(t *testing.T) {
	l := NewLot(Config{})
	for i := range 128 {
		if !l.Park(miss(1, uint16(i), 0), waitFor(1), 0) {
			t.Fatalf("packet %d is refused", i)
		}
	}
	if l.Park(miss(1, 999, 0), waitFor(1), 0) {
		t.Fatal("packet 129 is accepted")
	}
	if !l.Park(miss(2, 999, 0), waitFor(1), 0) {
		t.Fatal("another port pays")
	}
	if n := len(l.DropPort(1, nil)); n != 128 || l.Parked() != 1 {
		t.Fatalf("%d dropped, %d left", n, l.Parked())
	}
	want(t, l.DropPort(1, nil))
	want(t, l.Wake(waitFor(1), nil), "2.999#0")
}

func TestHeldOverflow(t *testing.T) {
	l := NewLot(Config{})
	for f := range uint16(9) {
		l.Park(miss(1, f, -1), waitFor(1), 0)
	}
	no := int64(0)
	for f := range uint16(8) { // 8 flows of 32 are 256
		for range 32 {
			if d := hold(t, l, miss(1, f, no)); d != nil {
				t.Fatalf("%d: %v dropped", no, d)
			}
			no++
		}
	}
	if d := hold(t, l, miss(1, 5, no)); d.Key.DstPort != 5 || d.Time != 5*32 {
		t.Fatalf("flow bound: dropped %d of flow %d", d.Time, d.Key.DstPort)
	}
	if d := hold(t, l, miss(1, 8, no)); d.Key.DstPort != 0 || d.Time != 0 {
		t.Fatalf("port bound: dropped %d of flow %d", d.Time, d.Key.DstPort)
	}
	if l.Held() != 256 {
		t.Fatalf("%d held", l.Held())
	}
}

// oracle is a Lot of slices without any index.
type oracle struct {
	cfg    Config
	parked []parked
	seq    int
}

type parked struct {
	miss     *datapath.Miss
	wait     tag.Tag
	deadline int64
	dups     []dupOf
}

type dupOf struct {
	miss *datapath.Miss
	seq  int
}

func (o *oracle) find(m *datapath.Miss) int {
	return slices.IndexFunc(o.parked, func(p parked) bool { return p.miss.Key == m.Key })
}

func (o *oracle) hold(m *datapath.Miss) (bool, *datapath.Miss) {
	i := o.find(m)
	if i < 0 {
		return false, nil
	}
	o.seq++
	o.parked[i].dups = append(o.parked[i].dups, dupOf{m, o.seq})
	victim, held := i, 0
	if len(o.parked[i].dups) <= o.cfg.HeldPerFlow {
		for j, p := range o.parked {
			if p.miss.Key.InPort != m.Key.InPort {
				continue
			}
			held += len(p.dups)
			if v := o.parked[victim].dups; len(p.dups) > 0 && p.dups[0].seq < v[0].seq {
				victim = j
			}
		}
		if held <= o.cfg.HeldPerPort {
			return true, nil
		}
	}
	d := o.parked[victim].dups[0].miss
	o.parked[victim].dups = o.parked[victim].dups[1:]
	return true, d
}

func (o *oracle) park(m *datapath.Miss, wait tag.Tag, now int64) bool {
	n := 0
	for _, p := range o.parked {
		if p.miss.Key.InPort == m.Key.InPort {
			n++
		}
	}
	if n >= o.cfg.ParkPerPort || o.find(m) >= 0 {
		return false
	}
	o.parked = append(o.parked, parked{m, wait, now + int64(o.cfg.ParkTime), nil})
	return true
}

func (o *oracle) release(which func(parked) bool) (out []Woken) {
	o.parked = slices.DeleteFunc(o.parked, func(p parked) bool {
		if !which(p) {
			return false
		}
		out = append(out, Woken{Miss: p.miss})
		for _, d := range p.dups {
			out = append(out, Woken{d.miss, true})
		}
		return true
	})
	return out
}

// Order, bounds and conservation: whatever happens, the Lot does what the oracle does, to
// the very packets.
func TestAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			HeldPerFlow: rapid.IntRange(1, 4).Draw(t, "perFlow"), HeldPerPort: rapid.IntRange(1, 6).Draw(t, "perPort"),
			ParkPerPort: rapid.IntRange(1, 4).Draw(t, "park"), ParkTime: 10,
		}
		l, o := NewLot(cfg), &oracle{cfg: cfg}
		in, out := 0, 0
		var c clock.Manual
		for no := range rapid.Int64Range(1, 150).Draw(t, "steps") {
			c.Advance(time.Duration(rapid.IntRange(0, 2).Draw(t, "dt")))
			port := rapid.Uint32Range(1, 2).Draw(t, "port")
			wait := waitFor(rapid.Uint32Range(1, 3).Draw(t, "wait"))
			var got, want []Woken
			switch rapid.IntRange(0, 9).Draw(t, "op") {
			case 0:
				got, want = l.Wake(wait, nil), o.release(func(p parked) bool { return p.wait == wait })
			case 1:
				got, want = l.Expire(c.Now(), nil), o.release(func(p parked) bool { return p.deadline <= c.Now() })
			case 2:
				if rapid.IntRange(0, 9).Draw(t, "drop") == 0 {
					got, want = l.DropPort(port, nil), o.release(func(p parked) bool { return p.miss.Key.InPort == port })
				}
			default: // as the worker does: hold, else simulate and park
				m := miss(port, rapid.Uint16Range(1, 6).Draw(t, "flow"), no)
				held, dropped := l.Hold(m)
				if h, d := o.hold(m); h != held || d != dropped {
					t.Fatalf("hold: %v %p, want %v %p", held, dropped, h, d)
				}
				if dropped != nil {
					out++
				}
				ok := held || l.Park(m, wait, c.Now())
				if want := held || o.park(m, wait, c.Now()); ok != want {
					t.Fatalf("park: %v, want %v", ok, want)
				}
				if ok {
					in++
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("got %v, want %v", text(got), text(want))
			}
			out += len(got)
			if l.Parked()+l.Held() != in-out || l.Parked() != len(o.parked) {
				t.Fatalf("%d parked and %d held of %d in, %d out", l.Parked(), l.Held(), in, out)
			}
		}
		out += len(l.Expire(1<<62, nil))
		if in != out || l.Parked() != 0 || l.Held() != 0 || len(l.ports) != 0 || len(l.waits) != 0 {
			t.Fatalf("in %d, out %d: %+v", in, out, l)
		}
	})
}

func TestAllocatesNothing(t *testing.T) {
	l := NewLot(Config{})
	m, d := miss(1, 1, 0), miss(1, 1, 1)
	if n := testing.AllocsPerRun(100, func() { l.Hold(m) }); n != 0 {
		t.Errorf("nothing parked: %v allocations", n)
	}
	l.Park(miss(2, 1, 0), waitFor(1), 0)
	if n := testing.AllocsPerRun(100, func() { l.Hold(m) }); n != 0 {
		t.Errorf("another one parked: %v allocations", n)
	}
	out := make([]Woken, 0, 8)
	l.Park(miss(1, 9, 0), waitFor(3), 0) // so that the port is known
	if n := testing.AllocsPerRun(100, func() {
		l.Park(m, waitFor(2), 0)
		l.Hold(d)
		out = l.Wake(waitFor(2), out[:0])
	}); n != 0 {
		t.Errorf("park, hold, wake: %v allocations", n)
	}
}

func BenchmarkHold(b *testing.B) {
	for _, parked := range []int{0, 100} {
		b.Run(fmt.Sprintf("parked=%d", parked), func(b *testing.B) {
			l := NewLot(Config{})
			for i := range parked {
				l.Park(miss(1, uint16(i), 0), waitFor(uint32(i)), 0)
			}
			m := miss(2, 1, 0)
			b.ReportAllocs()
			for b.Loop() {
				l.Hold(m)
			}
		})
	}
}

// What is there when bounds change stays, in the order of its time; what is new meets the new bounds.
func TestReconfigure(t *testing.T) {
	l := NewLot(Config{HeldPerFlow: 4, ParkPerPort: 3, ParkTime: 10 * time.Second})
	park := func(flow uint16, now time.Duration) bool {
		return l.Park(miss(1, flow, int64(flow)), waitFor(1), int64(now))
	}
	if !park(1, 0) || !park(2, time.Second) {
		t.Fatal("not parked")
	}
	for i := range int64(3) {
		hold(t, l, miss(1, 1, 10+i))
	}
	l.Reconfigure(Config{HeldPerFlow: 2, ParkPerPort: 2, ParkTime: 2 * time.Second})
	if park(3, time.Second) {
		t.Error("parked beyond the new bound")
	}
	if d := hold(t, l, miss(1, 1, 13)); d == nil || d.Time != 10 || l.Held() != 3 {
		t.Errorf("dropped %v, %d held", d, l.Held())
	}
	want(t, l.Expire(int64(2*time.Second-1), nil))
	want(t, l.Expire(int64(2*time.Second), nil), "1.1#1", "+1.1#11", "+1.1#12", "+1.1#13")
	l.Reconfigure(Config{HeldPerFlow: 2, ParkPerPort: 2, ParkTime: 6 * time.Second})
	if !park(4, 3*time.Second) {
		t.Error("not parked within the bound")
	}
	want(t, l.Expire(int64(7*time.Second-1), nil))
	want(t, l.Expire(int64(9*time.Second), nil), "1.2#2", "1.4#4")
	if l.Parked() != 0 || l.Held() != 0 {
		t.Error("not empty")
	}
}
