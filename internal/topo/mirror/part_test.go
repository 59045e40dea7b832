package mirror

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// crooked is a store whose feeds do worse than the contract allows: what they tell goes through bend.
type crooked struct {
	*mem.Store
	bend func([]store.BundleEvent) []store.BundleEvent // nil: they are honest
	feed *crookedFeed
}

type crookedFeed struct {
	store.Feed
	out    chan store.BundleEvent
	cancel context.CancelFunc
	marks  int // asked for and not answered
	broken bool
}

func (f *crookedFeed) Mark() {
	f.marks++
	f.Feed.Mark()
}

func (c *crooked) Feed(ctx context.Context) (store.Feed, error) {
	ctx, cancel := context.WithCancel(ctx)
	f, err := c.Store.Feed(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	c.feed = &crookedFeed{Feed: f, out: make(chan store.BundleEvent, 1<<14), cancel: cancel}
	return c.feed, nil
}

func (f *crookedFeed) Events() <-chan store.BundleEvent { return f.out }

// pump hands over all that the store has told by now. more: there was something else than an answer to our own question.
func (c *crooked) pump() (more bool) {
	if c.feed.broken {
		return true
	}
	c.feed.Mark()
	var es []store.BundleEvent
	for e := range c.feed.Feed.Events() {
		if es = append(es, e); e.Mark {
			if c.feed.marks--; c.feed.marks == 0 {
				break
			}
		}
	}
	more = len(es) > 1
	if c.bend != nil {
		es = c.bend(es)
	}
	for _, e := range es {
		c.feed.out <- e
	}
	return more
}

func (c *crooked) breakFeed() {
	c.feed.cancel()
	for range c.feed.Feed.Events() {
	}
	if !c.feed.broken {
		close(c.feed.out)
	}
	c.feed.broken = true
}

// partRig is a mirror of a part that goes step by step.
type partRig struct {
	*Mirror
	store *crooked
	clock *clock.Manual
	steps *PartSteps
}

func newPart(server *mem.Server) *partRig {
	r := &partRig{Mirror: NewPart(here), store: &crooked{Store: server.Client()}, clock: &clock.Manual{}}
	r.Clock, r.Reach = r.clock, 0
	r.steps = r.PartSteps(r.store)
	return r
}

// quiesce goes on until nothing is under way.
func (r *partRig) quiesce(t interface {
	Helper()
	Fatal(...any)
}) {
	t.Helper()
	for range 1000 {
		did, err := r.steps.Step(context.Background())
		if err != nil && r.steps.feed != nil {
			t.Fatal(err)
		}
		if !did && err == nil && !r.store.pump() {
			return
		}
	}
	t.Fatal("it does not come to rest")
}

func (r *partRig) close() {
	if r.steps.feed != nil {
		r.store.breakFeed()
	}
	r.store.Close()
}

// compareWhole holds what is shown against a mirror of the whole network.
func (r *partRig) compareWhole(t *rapid.T) {
	t.Helper()
	whole := New(here)
	whole.live, whole.health = r.live, r.health
	var initial []store.Event
	for _, k := range model.Kinds {
		os, _, err := r.store.List(context.Background(), k)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range os {
			initial = append(initial, store.Event{Object: o})
		}
	}
	want, _ := whole.next(whole.Snapshot(), whole.reset(initial), 0)
	got := r.Snapshot()
	for _, s := range []*view.Snapshot{want, got} { // counters are not part of the state
		for _, c := range s.Chains {
			forgetCounters(c.Rules)
		}
		for _, g := range s.Security {
			forgetCounters(g.Ingress.Rules)
			forgetCounters(g.Egress.Rules)
		}
	}
	if len(r.part.waiting) > 0 {
		t.Fatalf("%v wait", r.part.waiting)
	}
	if r.stale() {
		t.Fatal("something is not up to date")
	}
	for b := range r.part.pinned {
		if !r.part.things[b].known {
			t.Fatalf("%v is not known", b)
		}
	}
	for th, w := range r.part.things {
		if !w.known {
			continue
		}
		var a, b any
		switch th.Kind {
		case view.ThingPort:
			a, b = got.Port(th.ID), want.Port(th.ID)
		case view.ThingBridge:
			a, b = got.Bridge(th.ID), want.Bridge(th.ID)
		case view.ThingRouter:
			x, y := got.Router(th.ID), want.Router(th.ID)
			if !sameRouter(x, y) || !slices.Equal(r.routes[th.ID], whole.routes[th.ID]) {
				t.Fatalf("router %+v\n%+v\nwant %+v\n%+v", x, r.routes[th.ID], y, whole.routes[th.ID])
			}
		case view.ThingChain:
			a, b = got.Chain(th.ID), want.Chain(th.ID)
		case view.ThingGroup:
			if x, y := got.AddressGroup(th.ID), want.AddressGroup(th.ID); !sameAddresses(x, y) {
				t.Fatalf("group %+v, want %+v", x, y)
			}
		case view.ThingSecurity:
			a, b = got.SecurityGroup(th.ID), want.SecurityGroup(th.ID)
		case view.ThingBalancer:
			a, b = got.LoadBalancer(th.ID), want.LoadBalancer(th.ID)
		}
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("%v %s: %+v, want %+v", th.Kind, th.ID, a, b)
		}
		if _, absent := got.Absent[th]; absent == holds(want, th) {
			t.Fatalf("%v %s: absent %v", th.Kind, th.ID, absent)
		}
	}
	if n := len(got.Ports) + len(got.Bridges) + len(got.Routers) + len(got.Chains) + len(got.Groups) + len(got.Security) + len(got.Balancers) + len(got.Absent); n != len(r.part.things) {
		t.Fatalf("%d things are shown, %d are held", n, len(r.part.things))
	}
	if !reflect.DeepEqual(got.Hosts, want.Hosts) {
		t.Fatalf("hosts %+v, want %+v", got.Hosts, want.Hosts)
	}
	if w := whole.rebind(want, allPorts(want)); !slices.Equal(r.bindings, w) {
		t.Fatalf("bindings %+v, want %+v", r.bindings, w)
	}
}

func allPorts(s *view.Snapshot) dirty {
	d := newDirty()
	for id := range s.Ports {
		d.ports[id] = struct{}{}
	}
	return d
}

func forgetCounters(rules []view.Rule) {
	for i := range rules {
		rules[i].Counters = nil
	}
}

// randomPolicyOp draws what randomOp does not: chains with their rules, what they filter, and groups of ports.
func randomPolicyOp(t *rapid.T) store.Op {
	chains, groups := []uuid.UUID{id(60), id(61), id(62)}, []uuid.UUID{id(63), id(64)}
	chain := rapid.SampledFrom(chains)
	verb := rapid.SampledFrom([]store.Verb{store.Create, store.Create, store.Replace, store.Replace, store.Delete}).Draw(t, "verb")
	filter := func() uuid.UUID {
		return rapid.SampledFrom(append(chains, uuid.Nil)).Draw(t, "filter")
	}
	five := netip.MustParseAddr("10.0.0.5")
	var o model.Object
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		o = &model.Chain{Meta: model.Meta{ID: chain.Draw(t, "chain")}}
	case 1, 2:
		n := rapid.Byte().Draw(t, "n") % 4
		r := &model.Rule{Meta: model.Meta{ID: id(66 + n)}, ChainID: chain.Draw(t, "of"), Position: int(n) + 1, Action: model.RuleJump, JumpID: chain.Draw(t, "to")}
		if rapid.Bool().Draw(t, "nat") {
			r.Action, r.JumpID, r.Then, r.Targets = model.RuleDNAT, uuid.Nil, model.RuleReturn, []model.NATTarget{{From: five, To: five}}
		}
		o = r
	case 3:
		o = &model.PortGroup{Meta: model.Meta{ID: rapid.SampledFrom(groups).Draw(t, "group")}, Stateful: rapid.Bool().Draw(t, "stateful")}
	case 4:
		p := vm1Port()
		p.InboundFilterID, p.OutboundFilterID = filter(), filter()
		p.PortGroups = append([]uuid.UUID{}, groups[:rapid.IntRange(0, 2).Draw(t, "groups")]...)
		if rapid.Bool().Draw(t, "the other") {
			p.ID, p.Name, p.MAC, p.Addresses = vm2, "", match.MAC{}, nil
		}
		o, verb = p, store.Replace
	default:
		o, verb = &model.Bridge{Meta: model.Meta{ID: br, Name: "net"}, AdminStateUp: true, PreForwardingID: filter()}, store.Replace
	}
	return store.Op{Verb: verb, Object: o}
}

// TestPartEqualsWhole: whatever is written, asked for and let go, in what order ever the store tells, and whatever it leaves out or tells more than once, what a mirror of a
// part shows in the end is what a mirror of the whole network shows. Tags tell of all that comes and goes meanwhile.
func TestPartEqualsWhole(t *testing.T) {
	bridges, routers := []uuid.UUID{br, id(5)}, []uuid.UUID{rt, id(6)}
	ids := []uuid.UUID{vm1, vm2, spare, up, lan, wan, id(17), id(18), br, id(5), rt, id(6), id(45), id(46), id(55), id(56), id(60), id(61), id(62), id(99)}
	rapid.Check(t, func(t *rapid.T) {
		server := mem.NewServer()
		writer := server.Client()
		defer writer.Close()
		ctx := context.Background()
		base := create(sample()...)
		base = append(base, create(&model.Bridge{Meta: model.Meta{ID: id(5)}}, &model.Router{Meta: model.Meta{ID: id(6)}, AdminStateUp: true},
			&model.TunnelZone{Meta: model.Meta{ID: id(43)}}, &model.TunnelZone{Meta: model.Meta{ID: id(44)}})...)
		if _, err := writer.Txn(ctx, base...); err != nil {
			t.Fatal(err)
		}
		r := newPart(server)
		defer r.close()
		before := r.Snapshot()
		r.Subscribe(func(c Change) {
			for _, th := range things(before, c.Snapshot) {
				_, was := before.Absent[th]
				_, is := c.Snapshot.Absent[th]
				if (holds(before, th) != holds(c.Snapshot, th) || is && !was) && !tagged(c.Tags, th) {
					t.Fatalf("%v %s comes or goes, and nobody is told: %v", th.Kind, th.ID, c.Tags)
				}
			}
			before = c.Snapshot
		})
		wrong := rapid.IntRange(0, 3).Draw(t, "how wrong")
		r.store.bend = func(es []store.BundleEvent) []store.BundleEvent {
			var out []store.BundleEvent
			for _, e := range es {
				switch rapid.IntRange(0, 9).Draw(t, "bend") {
				case 0:
					if wrong == 3 {
						continue // lost
					}
				case 1:
					if wrong > 1 {
						out = append(out, clone(e)) // twice
					}
				case 2:
					if wrong > 0 && len(out) > 0 { // too early
						out = slices.Insert(out, rapid.IntRange(0, len(out)-1).Draw(t, "at"), e)
						continue
					}
				}
				out = append(out, e)
			}
			return out
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				r.clock.Advance(r.Idle)
				r.sweep()
			case 1:
				if r.steps.feed != nil {
					r.store.breakFeed()
				}
			case 2, 3:
				r.Load(vm1, []view.Thing{{Kind: view.ThingKind(rapid.IntRange(1, int(view.ThingBalancer)).Draw(t, "thing")), ID: rapid.SampledFrom(ids).Draw(t, "id")}})
			default:
				var ops []store.Op
				for range rapid.IntRange(1, 3).Draw(t, "ops") {
					if rapid.Bool().Draw(t, "policy") {
						ops = append(ops, randomPolicyOp(t))
					} else {
						ops = append(ops, randomOp(t, bridges, routers))
					}
				}
				_, _ = writer.Txn(ctx, ops...) // what is refused is the store's affair
			}
			for range rapid.IntRange(0, 3).Draw(t, "steps of the mirror") {
				if _, err := r.steps.Step(ctx); err == nil && r.steps.feed != nil {
					r.store.pump()
				}
			}
		}
		r.store.bend = nil
		for range 3 {
			r.quiesce(t)
			if err := r.steps.Compare(ctx); err != nil {
				t.Fatal(err)
			}
		}
		r.quiesce(t)
		r.compareWhole(t)
		if mended := r.Stats().Mended; wrong == 0 && mended > 0 {
			t.Fatalf("%d mended of an honest feed", mended)
		}
		if _, rev, _ := writer.List(ctx, model.KindHost); r.Told() != rev {
			t.Fatalf("it is told up to %d, the store is at %d", r.Told(), rev)
		}
	})
}

func clone(e store.BundleEvent) store.BundleEvent {
	e.Objects = slices.Clone(e.Objects)
	for i := range e.Objects {
		e.Objects[i] = model.Clone(e.Objects[i])
	}
	return e
}

// things lists what either snapshot has, or knows to be absent.
func things(ss ...*view.Snapshot) (list []view.Thing) {
	for _, s := range ss {
		d := dirty{ports: keys(s.Ports), bridges: keys(s.Bridges), routers: keys(s.Routers), chains: keys(s.Chains), groups: keys(s.Groups), security: keys(s.Security), balancers: keys(s.Balancers)}
		list = append(list, d.things()...)
		for t := range s.Absent {
			list = append(list, t)
		}
	}
	return list
}

func keys[T any](m map[uuid.UUID]*T) map[uuid.UUID]struct{} {
	set := make(map[uuid.UUID]struct{})
	for id := range m {
		set[id] = struct{}{}
	}
	return set
}

// tagged reports whether tags tell that a thing comes or goes: of a group all its addresses do, of a bridge its parts.
func tagged(tags []tag.Tag, th view.Thing) bool {
	return slices.ContainsFunc(tags, func(t tag.Tag) bool { return t.Kind == th.Tag().Kind && t.ID == th.ID })
}

// A mirror holds what its host's ports need, more when it is asked, and lets it go when no flow depends on it.
func TestPartIsHeldAsNeeded(t *testing.T) {
	server := mem.NewServer()
	w := server.Client()
	defer w.Close()
	base := sample()
	far := id(90)
	base = append(base, &model.Bridge{Meta: model.Meta{ID: far, Name: "far"}}, &model.Port{Meta: model.Meta{ID: id(91)}, BridgeID: far})
	if _, err := w.Txn(t.Context(), create(base...)...); err != nil {
		t.Fatal(err)
	}
	r := newPart(server)
	defer r.close()
	var tags []tag.Tag
	r.Subscribe(func(c Change) { tags = append(tags, c.Tags...) })
	r.quiesce(t)
	s := r.Snapshot()
	if !holds(s, view.Thing{Kind: view.ThingPort, ID: vm1}) || s.Bridge(br) == nil || s.Router(rt) == nil || s.Port(vm2) != nil || s.Bridge(far) != nil {
		t.Fatalf("at first: %+v", s)
	}
	if len(r.bindings) != 2 {
		t.Errorf("bindings %v", r.bindings)
	}
	farPort := view.Thing{Kind: view.ThingPort, ID: id(91)}
	nothing := view.Thing{Kind: view.ThingChain, ID: id(92)}
	if !s.Unknown(farPort) || !s.Unknown(nothing) {
		t.Error("what is not held is known")
	}
	tags = nil
	r.Load(vm1, []view.Thing{farPort, nothing})
	r.quiesce(t)
	if s = r.Snapshot(); s.Port(id(91)) == nil || s.Unknown(nothing) || s.Chain(id(92)) != nil {
		t.Errorf("asked for: %+v", s)
	}
	for _, want := range []tag.Tag{farPort.Tag(), nothing.Tag()} {
		if !slices.Contains(tags, want) {
			t.Errorf("no tag %v among %v", want, tags)
		}
	}
	held := r.Stats()
	r.InUse = func(ts []view.Thing) []view.Thing {
		return slices.DeleteFunc(ts, func(t view.Thing) bool { return t != farPort })
	}
	r.clock.Advance(r.Idle)
	r.sweep()
	if s = r.Snapshot(); s.Port(id(91)) == nil || !s.Unknown(nothing) || s.Port(vm1) == nil {
		t.Errorf("flows depend on one of them: %+v", s)
	}
	r.InUse, tags = nil, nil
	r.clock.Advance(r.Idle)
	r.sweep()
	if s = r.Snapshot(); s.Port(id(91)) != nil || !s.Unknown(farPort) || s.Port(vm1) == nil || !slices.Contains(tags, farPort.Tag()) {
		t.Errorf("no flow depends on it: %+v, tags %v", s, tags)
	}
	if now := r.Stats(); now.Objects >= held.Objects || now.Bundles >= held.Bundles {
		t.Errorf("%+v are still held, %+v were", now, held)
	}
}

// Nothing is let go while the store is away, as it could not be had again, nor for a while after: the store may not stay.
func TestNothingGoesWithoutTheStore(t *testing.T) {
	server := mem.NewServer()
	w := server.Client()
	defer w.Close()
	far := view.Thing{Kind: view.ThingPort, ID: id(91)}
	if _, err := w.Txn(t.Context(), create(append(sample(), &model.Bridge{Meta: model.Meta{ID: id(90)}}, &model.Port{Meta: model.Meta{ID: far.ID}, BridgeID: id(90)})...)...); err != nil {
		t.Fatal(err)
	}
	r := newPart(server)
	defer r.close()
	r.Load(vm1, []view.Thing{far})
	r.quiesce(t)
	after := func(what string, d time.Duration, want bool) {
		t.Helper()
		r.clock.Advance(d)
		if err := r.steps.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.Snapshot().Port(far.ID) != nil; got != want {
			t.Errorf("%s: held: %v", what, got)
		}
	}
	r.clock.Advance(r.Idle - 1)
	r.store.breakFeed()
	for err := error(nil); err == nil; {
		_, err = r.steps.Step(t.Context())
	}
	after("the store is away", 3*r.Idle, true)
	if _, err := r.steps.Step(t.Context()); err != nil || r.steps.feed == nil {
		t.Fatal(err)
	}
	after("it has not told anything yet", r.Idle, true)
	r.quiesce(t)
	if !r.Stats().Following {
		t.Fatal("the store is not followed")
	}
	after("it is back", 0, true)
	after("it was back for a while", r.Idle-1, true)
	r.quiesce(t)
	after("it was back for long", 1, false)
}

// A port that needs more than before stays as it was until that is there.
func TestPartStaysWhole(t *testing.T) {
	server := mem.NewServer()
	w := server.Client()
	defer w.Close()
	if _, err := w.Txn(t.Context(), create(sample()...)...); err != nil {
		t.Fatal(err)
	}
	r := newPart(server)
	defer r.close()
	r.quiesce(t)
	told := r.Told()
	chain := &model.Chain{Meta: model.Meta{ID: id(60), Name: "c"}}
	p := vm1Port()
	p.InboundFilterID = chain.ID
	rev, err := w.Txn(t.Context(), append(create(chain), replace(p))...)
	if err != nil {
		t.Fatal(err)
	}
	r.store.pump()
	if _, err := r.steps.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := r.Snapshot().Port(vm1); v == nil || v.Inbound != uuid.Nil || r.Told() != told {
		t.Errorf("before the chain is there: %+v, told %d", v, r.Told())
	}
	r.quiesce(t)
	if v := r.Snapshot().Port(vm1); v.Inbound != chain.ID || r.Told() != rev {
		t.Errorf("%+v, told %d of %d", v, r.Told(), rev)
	}
}

// While a port stays as it was because it needs more, so does everything else: what is shown is a network that there was. What does not come is not waited
// for without end, and meanwhile what the store has told does not count, even if the feed breaks.
func TestShownTogether(t *testing.T) {
	server := mem.NewServer()
	w := server.Client()
	defer w.Close()
	far := view.Thing{Kind: view.ThingPort, ID: id(91)}
	chain := model.Bundle{Kind: model.BundleChain, ID: id(60)}
	if _, err := w.Txn(t.Context(), create(append(sample(), &model.Chain{Meta: model.Meta{ID: chain.ID, Name: "c"}},
		&model.Bridge{Meta: model.Meta{ID: id(90)}}, &model.Port{Meta: model.Meta{ID: far.ID}, BridgeID: id(90)})...)...); err != nil {
		t.Fatal(err)
	}
	r := newPart(server)
	defer r.close()
	r.clock.Advance(time.Second)
	r.quiesce(t)
	write := func(o model.Object) {
		t.Helper()
		if _, err := w.Txn(t.Context(), replace(o)); err != nil {
			t.Fatal(err)
		}
	}
	is := func(when string, filtered bool, name string, known bool) {
		t.Helper()
		s := r.Snapshot()
		if got := s.Port(vm1).Inbound != uuid.Nil; got != filtered || s.Bridge(br).Name != name || (s.Port(far.ID) != nil) != known {
			t.Errorf("%s: filtered %v, bridge %q, known %v", when, got, s.Bridge(br).Name, s.Port(far.ID) != nil)
		}
	}
	lost := func(es []store.BundleEvent) []store.BundleEvent {
		return slices.DeleteFunc(es, func(e store.BundleEvent) bool { return e.Bundle == chain })
	}
	p := vm1Port()
	p.InboundFilterID = chain.ID
	r.store.bend = lost
	write(p)
	r.quiesce(t)
	write(&model.Bridge{Meta: model.Meta{ID: br, Name: "renamed"}, AdminStateUp: true})
	r.Load(vm1, []view.Thing{far})
	r.quiesce(t)
	is("the chain is on its way", false, "net", false)
	r.store.breakFeed()
	for err := error(nil); err == nil; {
		_, err = r.steps.Step(t.Context())
	}
	is("the feed breaks", false, "net", false)
	r.quiesce(t)
	r.clock.Advance(maxBehind - 1)
	r.quiesce(t)
	is("the chain does not come", false, "net", false)
	r.clock.Advance(1)
	r.quiesce(t)
	is("it has not come for long", false, "renamed", true)
	write(&model.Bridge{Meta: model.Meta{ID: br, Name: "renamed again"}, AdminStateUp: true})
	r.quiesce(t)
	is("and then", false, "renamed again", true)
	r.store.bend = nil
	for range 2 {
		if err := r.steps.Compare(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.quiesce(t)
	}
	is("it has come", true, "renamed again", true)
	p.InboundFilterID = uuid.Nil
	write(p)
	write(&model.Bridge{Meta: model.Meta{ID: br, Name: "net"}, AdminStateUp: true})
	r.quiesce(t)
	is("nothing more is needed", false, "net", true)
}

// What one port asks for and does not get is bounded.
func TestLoadIsBounded(t *testing.T) {
	r := newPart(mem.NewServer())
	defer r.store.Close()
	for i := range maxAsked {
		if !r.Load(vm1, []view.Thing{{Kind: view.ThingPort, ID: uuid.UUID{1, byte(i), byte(i >> 8)}}}) {
			t.Fatalf("refused after %d", i)
		}
	}
	more := []view.Thing{{Kind: view.ThingPort, ID: uuid.UUID{2}}}
	if r.Load(vm1, more) {
		t.Error("there is no bound")
	}
	if !r.Load(vm2, more) {
		t.Error("another port pays for it")
	}
}

// An agent that starts without the store has what an earlier one has held, and the store's changes when it comes back.
func TestPartIsKept(t *testing.T) {
	server := mem.NewServer()
	w := server.Client()
	defer w.Close()
	if _, err := w.Txn(t.Context(), create(sample()...)...); err != nil {
		t.Fatal(err)
	}
	r := newPart(server)
	r.Load(vm1, []view.Thing{{Kind: view.ThingPort, ID: vm2}, {Kind: view.ThingChain, ID: id(60)}})
	r.quiesce(t)
	close(r.ended) // Keep reads what it held
	k, err := r.Keep(t.Context())
	r.close()
	if err != nil || k.Part == nil || len(k.Part.Bundles) == 0 {
		t.Fatalf("%+v, %v", k, err)
	}
	next := newPart(server)
	defer next.close()
	next.Restore(k, 0)
	next.wantKept()
	next.useKept()
	s := next.Snapshot()
	if s.Port(vm1) == nil || s.Port(vm2) == nil || s.Unknown(view.Thing{Kind: view.ThingChain, ID: id(60)}) || len(next.bindings) != 2 || !closed(next.Synced()) {
		t.Errorf("without the store: %+v, bindings %v", s, next.bindings)
	}
	if _, err := w.Txn(t.Context(), remove(binding(vm2, there, ""))); err != nil {
		t.Fatal(err)
	}
	next.quiesce(t)
	if v := next.Snapshot().Port(vm2); v == nil || v.Host != uuid.Nil || !next.Stats().Following {
		t.Errorf("with the store: %+v", v)
	}
	// What an earlier version has kept is the whole network.
	old := newPart(server)
	defer old.close()
	k.Part = nil
	old.Restore(k, 0)
	old.useKept()
	old.Load(vm1, []view.Thing{{Kind: view.ThingPort, ID: vm2}})
	old.loadAsked()
	if s := old.Snapshot(); s.Port(vm1) == nil || s.Port(vm2) == nil {
		t.Errorf("of an earlier version: %+v", s)
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// The mirror runs by itself, loses the store, finds it again, and says how far it is though nothing of it has changed.
func TestRunPart(t *testing.T) {
	server := mem.NewServer()
	w, link := server.Client(), server.Client()
	defer w.Close()
	defer link.Close()
	if _, err := w.Txn(t.Context(), create(sample()...)...); err != nil {
		t.Fatal(err)
	}
	m := NewPart(here)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.RunPart(ctx, link) }()
	<-m.Synced()
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("not after twenty seconds:", what)
			}
		}
	}
	// A small network is held whole, unasked.
	await("all ports are known", func() bool { return len(m.Snapshot().Ports) == 6 })
	link.Disconnect()
	await("the store is away", func() bool { return !m.Stats().Following })
	rev, err := w.Txn(t.Context(), replace(&model.Bridge{Meta: model.Meta{ID: br, Name: "renamed"}, AdminStateUp: true}))
	if err != nil {
		t.Fatal(err)
	}
	link.Reconnect()
	await("the store is back", func() bool {
		return m.Told() == rev && m.Snapshot().Bridge(br).Name == "renamed" && m.Stats().Following
	})
	cancel()
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
}

// TestMemoryOfAPart: what a mirror costs is in proportion to what its host's ports need, and not to the cloud.
func TestMemoryOfAPart(t *testing.T) {
	tenants, hosts := 500, 400
	if testing.Short() {
		tenants, hosts = 50, 40
	}
	const ports = 40
	server := mem.NewServer()
	w := server.Client()
	defer w.Close()
	num := func(kind byte, n int) uuid.UUID {
		return uuid.UUID{kind, byte(n >> 16), byte(n >> 8), byte(n), 6: 0x40, 8: 0x80}
	}
	var ops []store.Op
	for h := range hosts {
		ops = append(ops, create(&model.Host{Meta: model.Meta{ID: num('h', h), Name: fmt.Sprint("host", h)}})...)
	}
	write := func() {
		if _, err := w.Txn(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
		ops = nil
	}
	for n := range tenants {
		tenant := model.Meta{Tenant: fmt.Sprint("tenant", n)}
		with := func(id uuid.UUID, name string) model.Meta { m := tenant; m.ID, m.Name = id, name; return m }
		ops = append(ops, create(&model.Bridge{Meta: with(num('b', n), "net"), AdminStateUp: true}, &model.Router{Meta: with(num('r', n), "gw"), AdminStateUp: true},
			&model.SecurityGroup{Meta: with(num('s', n), "default"), Stateful: true},
			&model.Port{Meta: with(num('u', n), "up"), BridgeID: num('b', n), AdminStateUp: true},
			&model.Port{Meta: with(num('d', n), "down"), RouterID: num('r', n), PeerID: num('u', n), AdminStateUp: true, Addresses: pfx("10.0.0.1/24")})...)
		for i := range ports {
			x := n*ports + i
			p := &model.Port{Meta: with(num('p', x), fmt.Sprint("vm", i)), BridgeID: num('b', n), AdminStateUp: true, MAC: match.MAC{2, 0, byte(n >> 8), byte(n), 0, byte(i + 1)},
				Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 10)}), 32)}, PortSecurity: true}
			ops = append(ops, create(p, binding(p.ID, num('h', x%hosts), fmt.Sprint("tap", x)))...)
		}
		if n%10 == 9 {
			write()
		}
	}
	heap := func() uint64 {
		var s runtime.MemStats
		for range 2 {
			runtime.GC()
		}
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	m := NewPart(num('h', 7))
	link := server.Client()
	defer link.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.RunPart(ctx, link) }()
	<-m.Synced()
	for m.Told() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	bytes := int64(heap()) - int64(before)
	s := m.Stats()
	t.Logf("%d of %d ports: %d kB in %d objects of %d bundles", len(m.bindings), tenants*ports, bytes/1000, s.Objects, s.Bundles)
	if len(m.bindings) != 50 || bytes > 20e6 {
		t.Errorf("%d ports cost %d bytes", len(m.bindings), bytes)
	}
	runtime.KeepAlive(m)
}
