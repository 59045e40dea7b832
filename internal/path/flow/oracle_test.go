package flow

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// policy stands for the topology: a decision that reads some fields, depends on tags, and
// changes when one of them does. It is sound: masks overlap, decisions do not contradict.
type policy struct{ version [8]uint32 }

func (p *policy) decide(k *match.Key) (m match.Mask, as action.Physical, ts []tag.Tag, kind Kind) {
	masks := [...]match.Mask{match.Dst, match.Dst | match.Src, match.Dst | match.DstPort, match.All}
	m = match.InPort | masks[k.Dst[15]%4]
	mk := m.Apply(k)
	a, b := k.Dst[15]%8, (mk.Src[15]+uint8(mk.DstPort))%8
	ts = []tag.Tag{{Kind: tag.Device, N: uint32(a)}, {Kind: tag.Route, N: uint32(b)}, {Kind: tag.DPPort, N: uint32(b)}}
	kind = Kind(k.Dst[15] % uint8(kinds))
	if kind != Error && kind != Drop {
		as = action.Physical{{Op: action.SetTOS, Value: mk.DstPort}, {Op: action.SetSrcPort, Value: uint16(p.version[a])},
			{Op: action.SetDstPort, Value: uint16(p.version[b])}, {Op: action.DecTTL}}
		for range mk.Src[15] % 3 {
			as = append(as, action.Action{Op: action.Output, Port: uint32(b)})
		}
	}
	return m, as, ts, kind
}

// change makes one thing different and returns its tag.
func (p *policy) change(n uint32, kind tag.Kind) tag.Tag {
	if kind != tag.DPPort {
		p.version[n]++
	}
	return tag.Tag{Kind: kind, N: n}
}

// fact is an entry of the oracle.
type fact struct {
	key     match.Key
	mask    match.Mask
	kind    Kind
	actions action.Physical
	tags    []tag.Tag
	created int64
	used    int64 // or when the last flow went
	flows   []*factFlow
}

type factFlow struct {
	key  match.Key
	used int64
}

// oracle does what Table does without capacity, by going through a slice.
type oracle struct {
	facts      []*fact
	now        int64
	idle, hard time.Duration
}

func (o *oracle) exact(k *match.Key) (*fact, *factFlow) {
	for _, f := range o.facts {
		for _, x := range f.flows {
			if x.key == *k {
				return f, x
			}
		}
	}
	return nil, nil
}

func (o *oracle) wildcard(k *match.Key) *fact {
	for _, f := range o.facts {
		if f.mask.Apply(k) == f.key {
			return f
		}
	}
	return nil
}

func (o *oracle) remove(gone func(*fact) bool) (n int) {
	before := len(o.facts)
	o.facts = slices.DeleteFunc(o.facts, gone)
	return before - len(o.facts)
}

func (o *oracle) expire() {
	idle, hard := int64(o.idle), int64(o.hard)
	for _, f := range o.facts {
		n := len(f.flows)
		f.flows = slices.DeleteFunc(f.flows, func(x *factFlow) bool { return o.now >= x.used+idle })
		if n > 0 && len(f.flows) == 0 {
			f.used = o.now
		}
	}
	o.remove(func(f *fact) bool {
		if f.kind == Error {
			return o.now >= f.created+hard
		}
		return len(f.flows) == 0 && o.now >= f.used+idle
	})
}

// genKey prefers a few keys, so that flows are met again.
func genKey(rt *rapid.T) *match.Key {
	pick := func(label string, from ...int) uint8 { return uint8(rapid.SampledFrom(from).Draw(rt, label)) }
	k := &match.Key{InPort: uint32(pick("port", 1, 1, 1, 2, 3))}
	k.Src[15] = pick("src", 0, 0, 0, 0, 1, 2, 3)
	k.Dst[15] = pick("dst", 2, 2, 2, 2, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)
	k.DstPort = uint16(pick("dport", 0, 0, 0, 1, 2))
	return k
}

// The table gives the oracle's answer to every question, and after Flush the datapath holds what
// the oracle's flows say.
func TestAgainstOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// Stateful at 64 s makes the wheel's tick 0.5 s, which divides all steps of time
		// below: it is never late.
		cfg := Config{Idle: 60 * time.Second, Error: 5 * time.Second, Stateful: 64 * time.Second}
		tb, d, clk := newTable(t, cfg)
		o, pol := &oracle{idle: cfg.Idle, hard: cfg.Error}, &policy{}
		// With few removals at once, or none: what is invalid is then still in the table, and must not answer.
		lazy := rapid.SampledFrom([]int{perTurn, perTurn, 0, 1, 3}).Draw(rt, "removed at once")
		tb.stale.left = lazy
		packet := func(*rapid.T) {
			k := genKey(rt)
			m, as, ts, kind := pol.decide(k)
			want, wantFlow := o.exact(k)
			e, ok := tb.Exact(k)
			if ok != (want != nil) {
				rt.Fatalf("Exact: %v, oracle %v", ok, want != nil)
			}
			if ok {
				wantFlow.used, want.used = o.now, o.now
			} else {
				want = o.wildcard(k)
				e, ok = tb.Wildcard(k)
				if ok != (want != nil) {
					rt.Fatalf("Wildcard: %v, oracle %v", ok, want != nil)
				}
				if ok {
					want.used = o.now
					tb.Install(k, e)
				} else {
					want = &fact{m.Apply(k), m, kind, as, ts, o.now, o.now, nil}
					o.facts = append(o.facts, want)
					e = tb.Add(k, m, as, ts, kind)
				}
				want.flows = append(want.flows, &factFlow{*k, o.now})
			}
			mask := e.Mask()
			if mask.Apply(k) != e.Key() || e.Mask() != want.mask || e.Kind() != kind || e.Flows() != len(want.flows) {
				rt.Fatalf("entry %+v, oracle %+v", e, want)
			}
			if !slices.Equal(e.Actions(), as) {
				rt.Fatalf("actions %v, a simulation now gives %v", e.Actions(), as)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"packet": packet, "another": packet, "third": packet,
			"used": func(*rapid.T) {
				k := genKey(rt)
				idle := time.Duration(rapid.IntRange(0, 40).Draw(rt, "idle")) * time.Second
				tb.Used(k, idle, 1, 100)
				if f, x := o.exact(k); x != nil {
					x.used, f.used = max(x.used, o.now-int64(idle)), max(f.used, o.now-int64(idle))
				}
			},
			"change": func(*rapid.T) {
				kind := rapid.SampledFrom([]tag.Kind{tag.Device, tag.Route}).Draw(rt, "kind")
				n := uint32(rapid.IntRange(0, 7).Draw(rt, "n"))
				// A version is read through both tags of its number.
				for _, kind := range []tag.Kind{kind, tag.Device + tag.Route - kind} {
					tg := pol.change(n, kind)
					want := o.remove(func(f *fact) bool { return slices.Contains(f.tags, tg) })
					if got := tb.Invalidate(tg.Hash()); got != want && lazy == perTurn {
						rt.Fatalf("Invalidate(%s): %d, oracle %d", tg, got, want)
					}
				}
			},
			"port": func(*rapid.T) {
				n := uint32(rapid.IntRange(1, 12).Draw(rt, "n"))
				tg := pol.change(n, tag.DPPort)
				want := o.remove(func(f *fact) bool { return f.key.InPort == n || slices.Contains(f.tags, tg) })
				if got := tb.InvalidatePort(n); got != want && lazy == perTurn {
					rt.Fatalf("InvalidatePort(%d): %d, oracle %d", n, got, want)
				}
			},
			"reconfigure": func(*rapid.T) {
				cfg.Idle = rapid.SampledFrom([]time.Duration{20 * time.Second, 60 * time.Second}).Draw(rt, "idle")
				cfg.Error = rapid.SampledFrom([]time.Duration{2 * time.Second, 30 * time.Second}).Draw(rt, "error")
				tb.Reconfigure(cfg)
				o.idle, o.hard = cfg.Idle, cfg.Error
			},
			"time": func(*rapid.T) {
				s := rapid.SampledFrom([]int{1, 3, 25, 40, 61}).Draw(rt, "seconds")
				if err := tb.Flush(); err != nil { // what is queued does not expire
					rt.Fatal(err)
				}
				clk.Advance(time.Duration(s) * time.Second)
				o.now = clk.Now()
				tb.Expire(1 << 20)
				o.expire()
			},
			"tend": func(*rapid.T) {
				budget := rapid.IntRange(0, 5).Draw(rt, "budget")
				before := tb.live
				tb.Tend(budget)
				if gone := before - tb.live; gone > budget+atOnce {
					rt.Fatalf("%d flows have gone at once, allowed are %d", gone, budget)
				}
			},
			"flush": func(*rapid.T) {
				for tb.Tend(100) {
				}
				flush(t, tb, d)
				n := 0
				for _, f := range o.facts {
					n += len(f.flows)
					for _, x := range f.flows {
						if as, ok := d.flows[x.key]; !ok || !slices.Equal(as, f.actions) {
							rt.Fatalf("datapath has %v, %v for %+v, oracle %v", as, ok, x.key, f.actions)
						}
					}
				}
				if n != len(d.flows) {
					rt.Fatalf("datapath has %d flows, oracle %d", len(d.flows), n)
				}
			},
			"": func(*rapid.T) {
				if err := consistent(tb); err != nil {
					rt.Fatal(err)
				}
				if n := tb.Stats().Entries; n < len(o.facts) || n > len(o.facts) && !tb.Stale() {
					rt.Fatalf("%d entries, oracle %d", n, len(o.facts))
				}
				tb.stale.left = lazy
			},
		})
	})
}

// Whatever fails, and with far too little room: the copy never claims what the
// datapath does not hold, an entry never outlives what it depends on, and once the
// datapath works again one Flush makes both equal.
func TestFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tb, d, clk := newTable(t, Config{MaxFlows: rapid.IntRange(1, 12).Draw(rt, "max"), MaxMasks: 2})
		lazy := rapid.SampledFrom([]int{perTurn, 0, 2}).Draw(rt, "removed at once")
		tb.stale.left = lazy
		d.max = rapid.IntRange(1, 12).Draw(rt, "datapath max")
		d.putErr, d.delErr = map[int]error{}, map[int]bool{}
		pol := &policy{}
		packet := func(*rapid.T) {
			k := genKey(rt)
			m, as, ts, kind := pol.decide(k)
			e, ok := tb.Exact(k)
			if !ok {
				if e, ok = tb.Wildcard(k); ok {
					tb.Install(k, e)
				} else {
					e = tb.Add(k, m, as, ts, kind)
				}
			}
			if mask := e.Mask(); mask.Apply(k) != e.Key() || !slices.Equal(e.Actions(), as) {
				rt.Fatalf("entry %+v for %+v", e, k)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"packet": packet, "another": packet, "third": packet,
			"change": func(*rapid.T) {
				n := uint32(rapid.IntRange(0, 7).Draw(rt, "n"))
				for _, kind := range []tag.Kind{tag.Device, tag.Route} {
					tg := pol.change(n, kind)
					tb.Invalidate(tg.Hash())
				}
			},
			"port": func(*rapid.T) { tb.InvalidatePort(uint32(rapid.IntRange(1, 12).Draw(rt, "n"))) },
			"reconfigure": func(*rapid.T) {
				tb.Reconfigure(Config{MaxFlows: rapid.IntRange(1, 12).Draw(rt, "max"), MaxMasks: 2, Idle: rapid.SampledFrom([]time.Duration{time.Second, time.Minute}).Draw(rt, "idle")})
				for tb.Trim(rapid.IntRange(1, 3).Draw(rt, "trim")) {
				}
			},
			"time": func(*rapid.T) {
				clk.Advance(time.Duration(rapid.IntRange(0, 50).Draw(rt, "seconds")) * time.Second)
				tb.Expire(rapid.IntRange(0, 4).Draw(rt, "budget"))
			},
			"tend": func(*rapid.T) { tb.Tend(rapid.IntRange(0, 4).Draw(rt, "tend")) },
			"dump": func(*rapid.T) {
				for k, as := range d.flows {
					tb.Audit(&datapath.FlowInfo{Key: k, Actions: as})
				}
			},
			"fault": func(*rapid.T) {
				d.done = rapid.Bool().Draw(rt, "done")
				err := rapid.SampledFrom([]error{errFault, datapath.ErrFull, datapath.ErrActions, datapath.ErrKey, datapath.ErrClosed}).Draw(rt, "error")
				d.putErr[d.puts+rapid.IntRange(1, 4).Draw(rt, "put")] = err
				d.delErr[d.delCall+rapid.IntRange(1, 3).Draw(rt, "del")] = rapid.Bool().Draw(rt, "fails")
			},
			"stray": func(*rapid.T) { // a flow that nobody owns
				k := genKey(rt)
				if tb.ndels < tb.maxDying() && tb.findExact(k, tb.hash(k)) == 0 && len(d.flows) < d.max {
					d.flows[*k] = out(99)
					tb.Audit(&datapath.FlowInfo{Key: *k, Actions: out(99)})
				}
			},
			"flush": func(*rapid.T) { _ = tb.Flush() },
			"": func(*rapid.T) {
				if err := errors.Join(consistent(tb), d.check(tb)); err != nil {
					rt.Fatal(err)
				}
				tb.stale.left = lazy
			},
		})
		clear(d.putErr)
		clear(d.delErr)
		for tb.Tend(10) {
		}
		flush(t, tb, d)
	})
}
