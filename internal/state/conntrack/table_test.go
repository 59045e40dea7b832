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

func (o *oracle) find(k tag.Kind, t match.Tuple) (c *known, reply bool) {
	for _, c := range o.conns {
		if c.Kind == k && (c.Orig == t || c.Reply == t) {
			return c, c.Orig != t
		}
	}
	return nil, false
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
	if x, reply := o.find(c.Kind, c.Orig); x != nil {
		if !reply && x.Reply == c.Reply {
			return Known
		}
		return Conflict
	}
	if x, _ := o.find(c.Kind, c.Reply); x != nil {
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
				c := Conn{Kind: kind(t), Device: device, Orig: draw(t), Reply: draw(t), Owner: uuid.UUID{rapid.ByteRange(1, 2).Draw(t, "owner")}}
				if got, want := tb.Add(c, now), o.add(c, now); got != want {
					t.Fatalf("Add(%+v) = %v, want %v", c, got, want)
				}
			},
			"ref": func(t *rapid.T) {
				k, tu := kind(t), draw(t)
				tg := tag.Of(k, device, &tu)
				c, _ := o.find(k, tu)
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
				k, tu := kind(t), draw(t)
				tg := tag.Of(k, device, &tu)
				tb.Ended(&tg, true, nil)
				if c, _ := o.find(k, tu); c != nil {
					want += o.remove(func(x *known) bool { return x == c })
				}
			},
			"forget": func(t *rapid.T) {
				id := uuid.UUID{rapid.ByteRange(1, 2).Draw(t, "owner")}
				if id == device {
					id = uuid.UUID{9}
				}
				tb.Forget(id, nil)
				want += o.remove(func(c *known) bool { return c.Owner == id })
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
					tu := draw(t)
					c, reply := o.find(k, tu)
					f, ok := tb.Lookup(k, device, &tu)
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

// TestSize: a connection must not cost more than 400 bytes, indexes included.
func TestSize(t *testing.T) {
	const n = 100_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tb := New(Config{})
	for i := range n {
		tb.Add(nth(i), 0)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (after.HeapAlloc - before.HeapAlloc) / n; each > 400 {
		t.Errorf("%d bytes a connection", each)
	} else {
		t.Logf("%d bytes a connection", each)
	}
	runtime.KeepAlive(tb)
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		tb := New(Config{})
		for i := range n {
			tb.Add(nth(i), 0)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		name := map[int]string{1000: "1k", 1_000_000: "1M"}[n]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				c := nth(i * 7919 % n)
				tb.Lookup(c.Kind, device, &c.Orig)
				i++
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/conn")
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
