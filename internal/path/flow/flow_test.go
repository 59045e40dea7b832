package flow

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

func key(port uint32, n int) *match.Key {
	k := &match.Key{InPort: port, Proto: 6, SrcPort: uint16(n), DstPort: uint16(n >> 16)}
	return k
}

func devTag(n uint32) []tag.Tag { return []tag.Tag{{Kind: tag.Device, N: n}} }

// A tenant that makes a mask of every packet fills its own list, gets exact entries from
// then on, and costs others nothing.
func TestMasksAreBounded(t *testing.T) {
	tb, d, _ := newTable(t, Config{MaxMasks: 4})
	tb.Add(key(2, 1), match.Proto, out(3), nil, Normal)
	for i := range 100 {
		m := match.Mask(i+1) << 1 & match.All
		k := key(1, i)
		e := tb.Add(k, m, out(2), nil, Normal)
		if over := e.Mask() == match.All; over != (i >= 4) {
			t.Fatalf("packet %d got mask %s", i, e.Mask())
		}
		if _, ok := tb.Wildcard(k); !ok {
			t.Fatalf("packet %d is not found", i)
		}
	}
	if n := len(tb.ports[1].masks); n != 5 {
		t.Errorf("port 1 has %d masks, want 4 and match.All", n)
	}
	if n := len(tb.ports[2].masks); n != 1 {
		t.Errorf("port 2 has %d masks, want its own", n)
	}
	if n := tb.Stats().MaskOverflow; n != 96 {
		t.Errorf("MaskOverflow %d, want 96", n)
	}
	flush(t, tb, d)
}

func TestHotMaskComesFirst(t *testing.T) {
	tb, _, _ := newTable(t, Config{})
	tb.Add(key(1, 1), match.SrcPort, out(2), nil, Normal)
	tb.Add(key(1, 2), match.SrcPort|match.Proto, out(2), nil, Normal)
	tb.Add(key(1, 3), match.SrcPort|match.EthType, out(2), nil, Normal)
	for range 2 {
		tb.Wildcard(key(1, 3))
	}
	if m := tb.ports[1].masks[0].mask; m != match.InPort|match.SrcPort|match.EthType {
		t.Errorf("first mask %s after two hits of the last", m)
	}
}

// Filling the table harms only the port that fills it.
func TestTheFattestPortPays(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const room = 30
		tb, d, _ := newTable(t, Config{MaxFlows: room})
		wild := rapid.Bool().Draw(rt, "share an entry")
		for i := range rapid.IntRange(1, 200).Draw(rt, "packets") {
			no := rapid.SampledFrom([]uint32{1, 1, 1, 1, 2, 2, 3}).Draw(rt, "port")
			var before [4]int
			for p := uint32(1); p <= 3; p++ {
				before[p], _ = tb.PortFlows(p)
			}
			k := key(no, i)
			if e, ok := tb.Wildcard(k); wild && ok {
				tb.Install(k, e)
			} else if wild {
				tb.Add(k, match.Proto, out(9), nil, Normal)
			} else {
				tb.Add(k, match.All, out(9), nil, Kind(i)%kinds)
			}
			most := max(before[1], before[2], before[3])
			for p := uint32(1); p <= 3; p++ {
				after, _ := tb.PortFlows(p)
				if p == no {
					after--
				}
				pays := before[1]+before[2]+before[3] == room && before[p] == most && (p == no || before[no] < most)
				if after < before[p] && !pays {
					rt.Fatalf("packet of port %d: port %d went from %d to %d flows; all had %v", no, p, before[p], after, before)
				}
			}
		}
		flush(t, tb, d)
	})
}

func TestCheapestKindGoesFirst(t *testing.T) {
	tb, d, _ := newTable(t, Config{MaxFlows: int(kinds)})
	for k := kinds; k > 0; k-- {
		tb.Add(key(1, int(k)), match.All, nil, nil, k-1)
	}
	flush(t, tb, d)
	for want := range Tunnel {
		tb.Add(key(1, 100+int(want)), match.All, out(2), nil, Tunnel)
		for k := range kinds {
			if _, ok := tb.Exact(key(1, int(k)+1)); ok != (k > want) {
				t.Errorf("after %d more: flow of kind %s is there: %v", want+1, k, ok)
			}
		}
	}
	flush(t, tb, d)
}

// An invalidation between install and Flush: the flow never reaches the datapath.
func TestInvalidationBeatsInstall(t *testing.T) {
	tb, d, _ := newTable(t, Config{})
	ts := devTag(1)
	k := key(1, 1)
	tb.Add(k, match.Proto, out(2), ts, Normal)
	tb.Install(key(1, 2), func() Entry { e, _ := tb.Wildcard(key(1, 2)); return e }())
	flush(t, tb, d)
	if len(d.flows) != 2 {
		t.Fatalf("%d flows installed, want 2", len(d.flows))
	}
	tb.Add(key(1, 3), match.SrcPort, out(2), ts, Normal)
	if n := tb.Invalidate(ts[0].Hash()); n != 2 {
		t.Fatalf("Invalidate: %d entries, want 2", n)
	}
	if _, ok := tb.Exact(k); ok {
		t.Error("found after its invalidation")
	}
	// The same packet, decided anew before the delete was sent.
	tb.Add(k, match.Proto, out(7), ts, Normal)
	flush(t, tb, d)
	if as := d.flows[*k]; len(d.flows) != 1 || len(as) != 1 || as[0].Port != 7 {
		t.Errorf("datapath has %v, want the new decision alone", d.flows)
	}
	if d.puts != 3 {
		t.Errorf("%d puts, want 3: an invalidated install is not sent", d.puts)
	}
}

func TestActionsTheDatapathCannotHold(t *testing.T) {
	tb, d, _ := newTable(t, Config{})
	d.refuse = func(f datapath.Flow) bool { return len(f.Actions) > 4 }
	long := action.Physical{{Op: action.DecTTL}, {Op: action.DecTTL}, {Op: action.DecTTL}, {Op: action.DecTTL}, {Op: action.Output, Port: 2}}
	tb.Add(key(1, 1), match.Proto, long, nil, Normal)
	tb.Add(key(1, 2), match.SrcPort, out(2), nil, Normal)
	flush(t, tb, d)
	if _, ok := tb.Exact(key(1, 1)); ok {
		t.Error("the copy has a flow that the datapath refused")
	}
	e, ok := tb.Wildcard(key(1, 1))
	if !ok || !e.UserSpace() || len(e.Actions()) != 5 {
		t.Fatalf("entry %v %+v, want a user-space one with its actions", ok, e)
	}
	tb.Install(key(1, 1), e)
	if puts, _ := tb.Pending(); puts != 0 {
		t.Error("a user-space entry was queued again")
	}
	if _, ok := tb.Exact(key(1, 2)); !ok {
		t.Error("the flow behind the refused one is missing")
	}
}

// A key that the datapath cannot tell from others costs its entry nothing: other keys get their flows.
func TestKeyTheDatapathCannotHold(t *testing.T) {
	tb, d, _ := newTable(t, Config{})
	d.refuse = func(f datapath.Flow) bool { return f.Key == *key(1, 1) }
	d.refuseErr = datapath.ErrKey
	e := tb.Add(key(1, 1), match.Proto, out(2), nil, Normal)
	tb.Install(key(1, 2), e)
	for range 2 { // its next packet is no different
		flush(t, tb, d)
		if _, ok := tb.Exact(key(1, 1)); ok {
			t.Error("the copy has a flow that the datapath refused")
		}
		if _, ok := tb.Exact(key(1, 2)); !ok {
			t.Error("another flow of the entry is missing")
		}
		if again, ok := tb.Wildcard(key(1, 1)); !ok || again != e || e.UserSpace() {
			t.Fatalf("entry %v %+v", ok, again)
		}
		tb.Install(key(1, 1), e)
	}
	if tb.Stats().Coarse != 2 || tb.Stats().PutErrors != 0 {
		t.Errorf("%+v", tb.Stats())
	}
}

// The datapath has less room than was configured: the port with the most flows
// pays, and the one that installs gets through.
func TestFullDatapath(t *testing.T) {
	tb, d, _ := newTable(t, Config{})
	d.max = 50
	for i := range 45 {
		tb.Add(key(1, i), match.All, out(2), nil, Normal)
	}
	flush(t, tb, d)
	for i := range 10 {
		tb.Add(key(2, i), match.All, out(3), nil, Normal)
	}
	flush(t, tb, d)
	if n, _ := tb.PortFlows(2); n != 10 {
		t.Errorf("port 2 has %d flows, want all 10", n)
	}
	if s := tb.Stats(); s.Evicted == 0 || s.Refused != 0 || s.Flows > 50 {
		t.Errorf("stats %+v", s)
	}
}

// A datapath with exactly the room configured is never asked for more: deletes go first.
func TestDeletesMakeRoom(t *testing.T) {
	tb, d, _ := newTable(t, Config{MaxFlows: 10})
	d.max = 10
	for i := range 25 {
		tb.Add(key(1, i), match.All, out(2), nil, Normal)
		if i%10 == 9 {
			flush(t, tb, d)
		}
	}
	flush(t, tb, d)
	if s := tb.Stats(); d.puts != 25 || s.Installed != 25 || s.Flows != 10 {
		t.Errorf("%d flows put, %d installed, %d left; want 25, 25, 10", d.puts, s.Installed, s.Flows)
	}
}

func TestFullOfOthers(t *testing.T) {
	tb, d, _ := newTable(t, Config{})
	d.max = 3
	for i := range 3 {
		d.flows[*key(9, i)] = out(1)
	}
	for i := range 2000 {
		tb.Add(key(1, i), match.All, out(2), nil, Normal)
	}
	if err := tb.Flush(); err != nil {
		t.Fatal(err)
	}
	if s := tb.Stats(); s.Flows != 0 || s.Refused == 0 || s.Entries != 2000 || len(d.flows) != 3 {
		t.Errorf("stats %+v, datapath %d flows; want entries alone", s, len(d.flows))
	}
}

func TestLostFlowIsPutAgain(t *testing.T) {
	tb, d, clk := newTable(t, Config{})
	k := key(1, 1)
	tb.Add(k, match.All, out(2), nil, Normal)
	flush(t, tb, d)
	clear(d.flows)
	for range 3 { // packets that were on their way when it was installed
		tb.Exact(k)
	}
	if puts, _ := tb.Pending(); puts != 0 {
		t.Fatalf("%d puts right after the install, want none", puts)
	}
	clk.Advance(2 * time.Second)
	tb.Exact(k)
	tb.Exact(k)
	flush(t, tb, d)
	if d.puts != 2 || tb.Stats().Repaired != 1 {
		t.Errorf("%d puts, repaired %d; want 2, 1", d.puts, tb.Stats().Repaired)
	}
}

func TestKeepForgetAudit(t *testing.T) {
	tb, d, _ := newTable(t, Config{})
	same, other, gone := key(1, 1), key(1, 2), key(1, 3)
	for _, k := range []*match.Key{same, other, gone} {
		d.flows[*k] = out(2)
	}
	a := tb.Keep(same, match.Proto, out(2), devTag(1), Normal, out(2))
	b := tb.Keep(other, match.SrcPort|match.EthType, out(3), devTag(1), Normal, out(2))
	tb.Forget(gone)
	if puts, dels := tb.Pending(); puts != 1 || dels != 1 {
		t.Fatalf("%d puts, %d deletes pending; want 1, 1", puts, dels)
	}
	flush(t, tb, d)
	if a.Flows() != 1 || b.Flows() != 1 || d.flows[*other][0].Port != 3 || tb.Stats().Adopted != 1 {
		t.Errorf("entries with %d, %d flows, datapath %v", a.Flows(), b.Flows(), d.flows)
	}
	second := key(1, 4) // an instance of the first entry
	d.flows[*second] = out(2)
	if e := tb.Keep(second, match.Proto, out(2), devTag(1), Normal, out(2)); e != a || e.Flows() != 2 {
		t.Errorf("an equal entry was not shared: %d flows", e.Flows())
	}

	for _, c := range []struct {
		name string
		info datapath.FlowInfo
		ok   bool
	}{
		{"right", datapath.FlowInfo{Key: *same, Actions: out(2), Packets: 5, Bytes: 500}, true},
		{"unknown", datapath.FlowInfo{Key: *key(5, 5), Actions: out(2)}, false},
		{"differs", datapath.FlowInfo{Key: *other, Actions: out(2)}, false},
	} {
		d.flows[c.info.Key] = c.info.Actions
		if ok := tb.Audit(&c.info); ok != c.ok {
			t.Errorf("Audit of a flow that is %s: %v", c.name, ok)
		}
	}
	flush(t, tb, d)
	if p, n := a.Counters(); p != 5 || n != 500 {
		t.Errorf("counters %d, %d; want what Audit was told", p, n)
	}
}

func TestCountersSurviveAFlow(t *testing.T) {
	tb, d, _ := newTable(t, Config{})
	k := key(1, 1)
	e := tb.Add(k, match.Proto, out(2), nil, Normal)
	flush(t, tb, d)
	tb.Used(k, 0, 10, 1000)
	tb.Used(k, 0, 15, 1500)
	tb.Used(k, 0, 2, 200) // put again in between: counts from 0
	if p, n := e.Counters(); p != 17 || n != 1700 {
		t.Errorf("counters %d, %d; want 17, 1700", p, n)
	}
}

// A busy stateful entry is reported every 30 s, an idle one is not and goes.
func TestOnBusy(t *testing.T) {
	var busy []uint16
	tb, d, clk := newTable(t, Config{OnBusy: func(e Entry) { k := e.Key(); busy = append(busy, k.SrcPort) }})
	for i := range 2 {
		tb.Add(key(1, i), match.SrcPort, out(2), nil, Stateful)
	}
	flush(t, tb, d)
	for range 200 {
		clk.Advance(time.Second)
		tb.Used(key(1, 1), 0, 1, 1)
		tb.Expire(1000)
	}
	flush(t, tb, d)
	if len(busy) < 5 || len(busy) > 6 {
		t.Errorf("reported %d times in 200 s, want every 30 s", len(busy))
	}
	for _, p := range busy {
		if p != 1 {
			t.Errorf("an idle entry was reported")
		}
	}
	if s := tb.Stats(); s.Entries != 1 || s.Flows != 1 {
		t.Errorf("%d entries, %d flows left; want the busy one", s.Entries, s.Flows)
	}
}

func TestExpireKeepsToItsBudget(t *testing.T) {
	tb, d, clk := newTable(t, Config{})
	for i := range 100 {
		tb.Add(key(1, i), match.All, nil, nil, Error)
	}
	flush(t, tb, d)
	clk.Advance(6 * time.Second)
	for i := range 10 {
		if n := tb.Expire(10); n != 10 {
			t.Fatalf("Expire %d removed %d, want 10", i, n)
		}
	}
	flush(t, tb, d)
	if s := tb.Stats(); s.Entries != 0 || s.Ports != 0 {
		t.Errorf("%d entries, %d ports left", s.Entries, s.Ports)
	}
}

// A change that invalidates everything is gone through in small steps, whichever way the flows hang together: a bounded number of flows
// goes at each turn; what is left answers nothing; new packets get their flows meanwhile; in the end nothing of the old is left.
func TestInvalidationIsPaced(t *testing.T) {
	const n, budget = 5_000, 64
	for _, c := range []struct {
		name       string
		mask       match.Mask
		tags       func(i int) []tag.Tag
		invalidate func(*Table)
	}{
		{"many entries of a set", match.All, func(int) []tag.Tag { return devTag(1) }, func(tb *Table) { d := devTag(1); tb.Invalidate(d[0].Hash()) }},
		{"many sets", match.All, func(i int) []tag.Tag { return append(devTag(1), tag.Tag{Kind: tag.Port, N: uint32(i)}) }, func(tb *Table) { d := devTag(1); tb.Invalidate(d[0].Hash()) }},
		{"many entries of one route", match.All, func(int) []tag.Tag { return []tag.Tag{{Kind: tag.Route, N: 1}} }, func(tb *Table) { r := tag.Tag{Kind: tag.Route, N: 1}; tb.Invalidate(r.Hash()) }},
		{"many tags", match.All, func(i int) []tag.Tag { return []tag.Tag{{Kind: tag.Route, N: uint32(i)}} }, func(tb *Table) {
			for i := range n {
				r := tag.Tag{Kind: tag.Route, N: uint32(i)}
				tb.Invalidate(r.Hash())
			}
		}},
		{"one entry with many flows", match.Proto, func(int) []tag.Tag { return devTag(1) }, func(tb *Table) { d := devTag(1); tb.Invalidate(d[0].Hash()) }},
		{"a port", match.All, func(int) []tag.Tag { return nil }, func(tb *Table) { tb.InvalidatePort(1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tb, d, _ := newTable(t, Config{MaxFlows: n + 1000})
			for i := range n {
				if e, ok := tb.Wildcard(key(1, i)); ok {
					tb.Install(key(1, i), e)
				} else {
					tb.Add(key(1, i), c.mask, out(2), c.tags(i), Normal)
				}
				if i%500 == 0 {
					_ = tb.Flush()
				}
			}
			if err := tb.Flush(); err != nil {
				t.Fatal(err)
			}
			before := tb.live
			c.invalidate(tb)
			if gone := before - tb.live; gone > perTurn+atOnce {
				t.Fatalf("%d flows have gone at once", gone)
			}
			for turn := 0; tb.Stale(); turn++ {
				if turn > 4*n/budget { // an entry, its flow and its tag count one each
					t.Fatalf("after %d turns there are %d flows left", turn, tb.live)
				}
				for _, i := range []int{turn, n - 1 - turn} { // old packets find nothing old
					if e, ok := tb.Exact(key(1, i)); ok && e.Actions()[0].Port != 7 {
						t.Fatalf("turn %d: an invalid flow answers", turn)
					}
					if e, ok := tb.Wildcard(key(1, i)); ok && e.Actions()[0].Port != 7 {
						t.Fatalf("turn %d: an invalid entry answers", turn)
					}
				}
				tb.Add(key(1, n-1-turn), match.All, out(7), c.tags(n-1-turn), Normal) // decided anew
				before := tb.live
				tb.Tend(budget)
				if gone := before - tb.live; gone > budget+atOnce {
					t.Fatalf("%d flows have gone at a turn", gone)
				}
				if puts, dels := tb.Pending(); puts+dels > perTurn+budget+2*atOnce {
					t.Fatalf("%d puts, %d deletes in one turn", puts, dels)
				}
				if err := tb.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			for k, as := range d.flows {
				if as[0].Port != 7 {
					t.Fatalf("%v is still in the datapath", k)
				}
			}
			flush(t, tb, d)
		})
	}
}
