package conntrack

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/offheap"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

var device = uuid.UUID{1}

func tuple(src, dst byte, sport, dport uint16) match.Tuple {
	return match.Tuple{Src: match.Addr{15: src}, Dst: match.Addr{15: dst}, SrcPort: sport, DstPort: dport, Proto: 6}
}

func nth(i int) Conn {
	t := match.Tuple{Src: match.Addr{12: byte(i >> 24), 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}, SrcPort: 1, DstPort: 2, Proto: 6}
	return Conn{Kind: tag.Translation, Device: device, Orig: t, Reply: t.Reverse()}
}

// oracle is the same table without any cleverness.
type oracle struct {
	max   int
	conns []*known
}

type known struct {
	Conn
	refs int
	used int64
}

// handle is what Ref has returned for a connection.
type handle struct {
	*known
	uint64
}

func (o *oracle) find(k tag.Kind, device uuid.UUID, t match.Tuple) (c *known, reply bool) {
	for _, c := range o.conns {
		if c.Kind == k && c.Device == device && (c.Orig == t || c.Reply == t) {
			return c, c.Orig != t
		}
	}
	return nil, false
}

// knows reports whether one of a connection's directions is there.
func (o *oracle) knows(c Conn) bool {
	a, _ := o.find(c.Kind, c.Device, c.Orig)
	b, _ := o.find(c.Kind, c.Device, c.Reply)
	return a != nil || b != nil
}

func (o *oracle) owned(id uuid.UUID) (n int) {
	for _, c := range o.conns {
		if c.Owner == id {
			n++
		}
	}
	return n
}

func (o *oracle) add(c Conn, now int64) Verdict {
	if x, reply := o.find(c.Kind, c.Device, c.Orig); x != nil {
		if !reply && x.Reply == c.Reply {
			return Known
		}
		return Conflict
	}
	if x, _ := o.find(c.Kind, c.Device, c.Reply); x != nil {
		return Conflict
	}
	if o.owned(c.Owner) >= o.max {
		return Full
	}
	o.conns = append(o.conns, &known{Conn: c, used: now})
	return Added
}

func (o *oracle) remove(gone func(*known) bool) (n int) {
	var rest []*known
	for _, c := range o.conns {
		if !gone(c) {
			rest = append(rest, c)
		}
	}
	n = len(o.conns) - len(rest)
	o.conns = rest
	return n
}

func TestTableAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := &oracle{max: rapid.IntRange(1, 6).Draw(t, "max")}
		cfg := DefaultConfig()
		removed := 0
		cfg.MaxPerOwner, cfg.OnRemove = o.max, func(Conn) { removed++ }
		tb := New(cfg)
		now, want := int64(0), 0
		var handles []handle
		at := func(t *rapid.T) uuid.UUID { return uuid.UUID{15: rapid.ByteRange(1, 2).Draw(t, "device")} }
		owner := func(t *rapid.T) uuid.UUID { return uuid.UUID{rapid.ByteRange(1, 2).Draw(t, "owner")} }
		draw := func(t *rapid.T) match.Tuple {
			b := rapid.ByteRange(1, 2)
			p := rapid.Uint16Range(1, 2)
			return tuple(b.Draw(t, "src"), b.Draw(t, "dst"), p.Draw(t, "sport"), p.Draw(t, "dport"))
		}
		kind := func(t *rapid.T) tag.Kind {
			return rapid.SampledFrom([]tag.Kind{tag.Connection, tag.Translation}).Draw(t, "kind")
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				c := Conn{Kind: kind(t), Device: at(t), Orig: draw(t), Reply: draw(t), Owner: owner(t)}
				if got, want := tb.Add(c, now), o.add(c, now); got != want {
					t.Fatalf("Add(%+v) = %v, want %v", c, got, want)
				}
			},
			"add both": func(t *rapid.T) {
				a := Conn{Kind: kind(t), Device: at(t), Orig: draw(t), Owner: owner(t)}
				a.Reply = a.Orig.Reverse()
				b := a
				b.Owner = owner(t)
				b.Device[15] ^= 3
				want, before := Added, slices.Clone(o.conns)
				if o.knows(a) || o.knows(b) {
					want = Conflict
				} else if max(o.add(a, now), o.add(b, now)) == Full {
					want, o.conns = Full, before
				}
				_, h, got := tb.AddBoth(&a, &b, now)
				if got != want {
					t.Fatalf("AddBoth(%+v, %+v) = %v, want %v", a, b, got, want)
				}
				if c, _ := o.find(b.Kind, b.Device, b.Orig); got == Added {
					if !tb.RefAt(h) {
						t.Fatalf("%+v is not where it was put", b)
					}
					c.refs++
					handles = append(handles, handle{c, h})
				}
			},
			"ref": func(t *rapid.T) {
				k, d, tu := kind(t), at(t), draw(t)
				tg := tag.Of(k, d, &tu)
				c, _ := o.find(k, d, tu)
				h, ok := tb.Ref(&tg)
				if ok != (c != nil) {
					t.Fatalf("Ref(%v), want %v", tg, c != nil)
				}
				if c != nil {
					c.refs++
					handles = append(handles, handle{c, h})
				}
			},
			"unref": func(t *rapid.T) {
				if len(handles) == 0 {
					t.Skip("none is held")
				}
				i := rapid.IntRange(0, len(handles)-1).Draw(t, "handle")
				h := handles[i]
				handles = slices.Delete(handles, i, i+1)
				tb.Unref(h.uint64, now) // of one that is gone, too, whose place another may have
				h.refs, h.used = h.refs-1, now
			},
			"reset": func(t *rapid.T) {
				k, d, tu := kind(t), at(t), draw(t)
				tg := tag.Of(k, d, &tu)
				tb.Ended(&tg, true, nil)
				if c, _ := o.find(k, d, tu); c != nil {
					want += o.remove(func(x *known) bool { return x == c })
				}
			},
			"forget": func(t *rapid.T) {
				id := rapid.OneOf(rapid.Custom(at), rapid.Custom(owner)).Draw(t, "id")
				tb.Forget(id, nil)
				want += o.remove(func(c *known) bool { return c.Owner == id || c.Device == id })
			},
			"time": func(t *rapid.T) {
				now += int64(rapid.IntRange(0, 90).Draw(t, "s")) * int64(time.Second)
				for range ticks {
					tb.Tick(now, nil)
				}
				want += o.remove(func(c *known) bool { return c.refs == 0 && now >= c.used+int64(cfg.TCPNew) })
			},
			"": func(t *rapid.T) {
				for _, k := range []tag.Kind{tag.Connection, tag.Translation} {
					d, tu := at(t), draw(t)
					c, reply := o.find(k, d, tu)
					f, ok := tb.Lookup(k, d, &tu)
					if ok != (c != nil) {
						t.Fatalf("Lookup(%v) = %v", tu, ok)
					}
					if c == nil {
						continue
					}
					other := c.Reply
					if reply {
						other = c.Orig
					}
					if c.Orig != c.Reply && (f.Other != other || f.Reply != reply) {
						t.Fatalf("Lookup(%v) = %+v, want %+v %v", tu, f, other, reply)
					}
				}
				held := 0
				for _, c := range o.conns {
					held += min(c.refs, 1)
				}
				tb.Each(func(c *Conn, _ State, is bool) {
					if x, _ := o.find(c.Kind, c.Device, c.Orig); x == nil || x.Conn != *c {
						t.Fatalf("there is %+v, want %+v", c, x)
					}
					if is {
						held--
					}
				})
				if held != 0 {
					t.Fatalf("%d more are held", held)
				}
				if tb.Len() != len(o.conns) || removed != want {
					t.Fatalf("%d connections, %d removed, want %d, %d", tb.Len(), removed, len(o.conns), want)
				}
			},
		})
	})
}

// TestTCPEnds: FIN of one side is not the end, of both it is; an answer makes the time longer.
func TestTCPEnds(t *testing.T) {
	tb := New(DefaultConfig())
	c := nth(1)
	orig, reply := tag.Of(c.Kind, c.Device, &c.Orig), tag.Of(c.Kind, c.Device, &c.Reply)
	tb.Add(c, 0)
	tb.Replied(&reply)
	all := func(now time.Duration) (n int) {
		for range ticks {
			n += len(tb.Tick(int64(now), nil))
		}
		return n
	}
	if all(123*time.Minute) != 0 {
		t.Error("an answered connection expired early")
	}
	if gone := tb.Ended(&orig, false, nil); len(gone) != 0 {
		t.Error("ended by one side")
	}
	if gone := tb.Ended(&reply, false, nil); len(gone) != 2 || tb.Len() != 0 {
		t.Errorf("both have ended: %v", gone)
	}
	tb.Add(c, 0)
	if all(2*time.Minute-1) != 0 || all(2*time.Minute) != 2 {
		t.Error("one without an answer has another time")
	}
}

// TestTimeouts: how long the connections of each protocol live from when they were used last.
func TestTimeouts(t *testing.T) {
	for _, c := range []struct {
		name     string
		proto    uint8
		answered bool
		idle     time.Duration // the connection's own
		want     time.Duration
	}{
		{"TCP, new", 6, false, 0, 2 * time.Minute},
		{"TCP", 6, true, 0, 124 * time.Minute},
		{"UDP, new", 17, false, 0, 30 * time.Second},
		{"UDP", 17, true, 0, 3 * time.Minute},
		{"SCTP", 132, true, 0, 3 * time.Minute},
		{"ICMP", 1, true, 0, time.Minute},
		{"ICMPv6, new", 58, false, 0, time.Minute},
		{"of a client that is to come back", 6, true, time.Hour, time.Hour},
	} {
		tb := New(DefaultConfig())
		conn := nth(1)
		conn.Orig.Proto, conn.Reply.Proto, conn.Idle = c.proto, c.proto, c.idle
		tb.Add(conn, 0)
		if reply := tag.Of(conn.Kind, conn.Device, &conn.Reply); c.answered {
			tb.Replied(&reply)
		}
		for _, now := range []time.Duration{c.want - 1, c.want} {
			gone := 0
			for range ticks {
				gone += len(tb.Tick(int64(now), nil))
			}
			if (gone > 0) != (now == c.want) {
				t.Errorf("%s: %d tags have changed after %v", c.name, gone, now)
			}
		}
	}
}

// TestOneWinner: of workers that want the same answers, each tuple goes to one.
func TestOneWinner(t *testing.T) {
	tb := New(Config{})
	var won atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				c := nth(i)
				c.Orig.Dst = match.Addr{byte(w + 1)}
				if tb.Add(c, 0) == Added {
					won.Add(1)
				}
				if f, ok := tb.Lookup(c.Kind, device, &c.Reply); !ok || !f.Reply {
					t.Errorf("%d: %+v %v", i, f, ok)
				}
			}
		})
	}
	wg.Wait()
	if won.Load() != 2000 || tb.Len() != 2000 {
		t.Errorf("%d won, %d there", won.Load(), tb.Len())
	}
}

// TestReadersSeeWholeConnections: entries are used again for other connections all the time, and nobody sees half of one.
func TestReadersSeeWholeConnections(t *testing.T) {
	const own, rounds = 8, 3000
	tb := New(Config{})
	conn := func(w, i int) Conn {
		c := nth(w<<8 | i)
		c.Reply.SrcPort, c.Owner = uint16(i), uuid.UUID{byte(w), byte(i)}
		if i%2 == 0 {
			c.Reply = c.Orig.Reverse()
		}
		return c
	}
	var writers, readers sync.WaitGroup
	var done atomic.Bool
	for w := range 2 { // entries of two, of which each half goes by itself
		writers.Go(func() {
			for n := range rounds {
				a := nth((8+w)<<8 | n%own)
				a.Owner = uuid.UUID{byte(8 + w)}
				b := a
				b.Device = uuid.UUID{2}
				if _, _, v := tb.AddBoth(&a, &b, 0); v != Added {
					t.Errorf("AddBoth: %v", v)
				}
				for _, c := range [...]*Conn{&b, &a} {
					orig := tag.Of(c.Kind, c.Device, &c.Orig)
					h, ok := tb.Ref(&orig)
					if got, _, there := tb.Get(&orig); !ok || !there || got != *c {
						t.Errorf("%+v is %+v", c, got)
					}
					tb.Unref(h, 1)
					if gone := tb.Ended(&orig, true, nil); len(gone) != 2 || gone[0] != orig {
						t.Errorf("removed %v", gone)
					}
				}
			}
		})
	}
	for w := range 3 {
		writers.Go(func() {
			for n := range rounds {
				c := conn(w, n%own)
				orig := tag.Of(c.Kind, c.Device, &c.Orig)
				if v := tb.Add(c, 0); v != Added {
					t.Errorf("Add: %v", v)
				}
				h, ok := tb.Ref(&orig)
				if !ok {
					t.Error("not there")
				}
				tb.Unref(h, 1)
				if gone := tb.Ended(&orig, true, nil); len(gone) != 2 || gone[0] != orig {
					t.Errorf("removed %v", gone)
				}
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for n := 0; !done.Load(); n++ {
				c := conn(n%3, n/3%own)
				if f, ok := tb.Lookup(c.Kind, device, &c.Orig); ok && (f.Other != c.Reply || f.Reply) {
					t.Errorf("%+v has %+v", c, f)
				}
				if f, ok := tb.Lookup(c.Kind, device, &c.Reply); ok && (f.Other != c.Orig || !f.Reply) {
					t.Errorf("%+v has %+v", c, f)
				}
				tg := tag.Of(c.Kind, device, &c.Orig)
				if got, _, ok := tb.Get(&tg); ok && (got.Orig != c.Orig || got.Reply != c.Reply) {
					t.Errorf("%+v is %+v", c, got)
				}
			}
		})
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
	if tb.Len() != 0 || len(tb.ids) != 0 {
		t.Errorf("%d connections, %d owners left", tb.Len(), len(tb.ids))
	}
}

// TestHalves: what two devices have together is two connections in everything but memory.
func TestHalves(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxPerOwner = 2
	tb := New(cfg)
	a := nth(7)
	a.Kind, a.Owner = tag.Connection, uuid.UUID{8}
	b := a
	b.Device, b.Owner = uuid.UUID{2}, uuid.UUID{9}
	ta, tgb := tag.Of(a.Kind, a.Device, &a.Orig), tag.Of(b.Kind, b.Device, &b.Orig)
	_, hb, v := tb.AddBoth(&a, &b, 0)
	if _, _, again := tb.AddBoth(&b, &a, 0); v != Added || again != Conflict || tb.Len() != 2 || tb.slab.places != 1 {
		t.Fatalf("%v, %v: %d connections in %d entries", v, again, tb.Len(), tb.slab.places)
	}
	if !tb.RefAt(hb) {
		t.Fatal("not there")
	}
	tb.Replied(&ta)
	if got, s, ok := tb.Get(&ta); !ok || got != a || s != Replied {
		t.Errorf("%+v, %v, want %+v", got, s, a)
	}
	if got, s, ok := tb.Get(&tgb); !ok || got != b || s != 0 {
		t.Errorf("%+v, %v, want %+v", got, s, b)
	}
	if gone := tb.Forget(a.Device, nil); len(gone) != 2 || tb.Has(&ta) || !tb.Has(&tgb) { // its port moves away
		t.Fatalf("gone: %v", gone)
	}
	if tb.Add(a, 0) != Added || tb.slab.places != 2 {
		t.Error("the half of an entry that is in use was used again")
	}
	for range ticks {
		tb.Tick(int64(time.Hour), nil)
	}
	if tb.Len() != 1 || !tb.Has(&tgb) {
		t.Error("what a flow holds has expired, or what none does has not")
	}
	tb.Unref(hb, int64(time.Hour))
	if gone := tb.Ended(&tgb, true, nil); len(gone) != 2 || tb.Len() != 0 || tb.slab.spare != 2 || len(tb.ids) != 0 {
		t.Errorf("%d connections, %d entries are free, owners %v", tb.Len(), tb.slab.spare, tb.ids)
	}
	if tb.Unref(hb, 0); tb.RefAt(hb) {
		t.Error("one that is gone is held")
	}
	// Neither or both, within the bound.
	b.Owner = a.Owner
	other := nth(8)
	other.Owner = a.Owner
	tb.Add(other, 0)
	if _, _, v := tb.AddBoth(&a, &b, 0); v != Full || tb.Len() != 1 || tb.Has(&ta) || tb.Refused() != 1 {
		t.Error("beyond the owner's bound")
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	tb := New(DefaultConfig())
	c := nth(7)
	tb.Add(c, 0)
	tg := tag.Of(c.Kind, c.Device, &c.Orig)
	if n := testing.AllocsPerRun(100, func() {
		tb.Lookup(c.Kind, c.Device, &c.Reply)
		h, _ := tb.Ref(&tg)
		tb.Unref(h, 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestAddDoesNotAllocate: what the table grows by is taken for many at once.
func TestAddDoesNotAllocate(t *testing.T) {
	tb, i := New(Config{}), 0
	add := func() {
		tb.Add(nth(i), 0)
		i++
	}
	for range 100_000 { // past the time when each part of the index grows soon again
		add()
	}
	if n := testing.AllocsPerRun(50_000, add); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestDevices: connections of different devices are different ones, although they are found at the same place.
func TestDevices(t *testing.T) {
	tb := New(DefaultConfig())
	c := nth(7)
	tags := make([]tag.Tag, 4)
	for i := range tags {
		c.Device = uuid.UUID{byte(i)}
		tags[i] = tag.Of(c.Kind, c.Device, &c.Orig)
		if v := tb.Add(c, 0); v != Added {
			t.Fatalf("device %d: %v", i, v)
		}
	}
	tb.Replied(&tags[1])
	tb.Ended(&tags[2], true, nil)
	for i := range tags {
		f, ok := tb.Lookup(c.Kind, tags[i].ID, &c.Reply)
		if ok != (i != 2) || f.Replied != (i == 1) {
			t.Errorf("device %d: %+v, %v", i, f, ok)
		}
	}
}

// memory is what is in use of Go's heap and beside it, once tables that nobody has any more are gone.
func memory() uint64 {
	var m runtime.MemStats
	runtime.GC()
	for was := uint64(0); was != offheap.Mapped(); time.Sleep(10 * time.Millisecond) {
		was = offheap.Mapped()
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + offheap.Mapped()
}

// TestSize: a connection must not cost more than 400 bytes, indexes included.
func TestSize(t *testing.T) {
	const n = 100_000
	before := memory()
	tb := New(Config{})
	for i := range n {
		tb.Add(nth(i), 0)
	}
	if each := (memory() - before) / n; each > 400 {
		t.Errorf("%d bytes a connection", each)
	} else {
		t.Logf("%d bytes a connection", each)
	}
	runtime.KeepAlive(tb)
}

// TestGrowthIsNotTheCollectors: who takes memory from Go's heap while the garbage collector marks may have to wait for it. Only the index does.
func TestGrowthIsNotTheCollectors(t *testing.T) {
	const n = 100_000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tb := New(Config{})
	for i := range n {
		tb.Add(nth(i), 0)
	}
	runtime.ReadMemStats(&after)
	each := (after.TotalAlloc - before.TotalAlloc) / n
	tags := make([]tag.Tag, 0, 2*n)
	runtime.ReadMemStats(&before)
	tb.Forget(device, tags)
	runtime.ReadMemStats(&after)
	if tb.Len() != 0 {
		t.Errorf("%d connections are left", tb.Len())
	}
	back := (after.TotalAlloc - before.TotalAlloc) / n
	if (each > 64 || back > 0) && !offheap.OnHeap {
		t.Errorf("a connection takes %d bytes of Go's heap, and %d when it goes", each, back)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		before := memory()
		tb := New(Config{})
		for i := range n {
			tb.Add(nth(i), 0)
		}
		taken := memory() - before
		name := map[int]string{1000: "1k", 1_000_000: "1M"}[n]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				c := nth(i * 7919 % n)
				tb.Lookup(c.Kind, device, &c.Orig)
				i++
			}
			b.ReportMetric(float64(taken)/float64(n), "B/conn")
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	tb := New(Config{})
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		tb.Add(nth(i), 0)
		i++
	}
}
