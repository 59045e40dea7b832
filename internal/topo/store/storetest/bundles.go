package storetest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Parts is a store with bundles.
type Parts interface {
	store.Store
	store.Bundles
}

// PartsCluster is one store, empty at first, and the links to it: see Cluster.
type PartsCluster struct {
	Open      func(t *testing.T) Parts
	Cut, Heal func(t *testing.T)
}

// RunBundles checks an implementation. start makes a cluster that ends with its test.
func RunBundles(t *testing.T, start func(t *testing.T) PartsCluster) {
	for _, c := range []struct {
		name string
		test func(*testing.T, PartsCluster)
	}{
		{"Whole", testBundlesWhole},
		{"Changes", testBundlesChange},
		{"Leave", testBundlesLeave},
		{"Over", testBundlesOver},
		{"Mark", testBundlesMark},
		{"InOrder", testBundlesInOrder},
		{"End", testBundlesEnd},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, start(t)) })
	}
}

// replica is what a feed has told.
type replica struct {
	store.Feed
	at     map[model.Bundle]*held
	cancel context.CancelFunc
}

type held struct {
	seq, rev int64
	objects  map[model.Key]model.Object
}

func feed(t *testing.T, s store.Bundles) *replica {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	f, err := s.Feed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &replica{Feed: f, at: make(map[model.Bundle]*held), cancel: cancel}
}

// next takes an event, and holds it against what the contract says of the order of events.
func (r *replica) next(t *testing.T) store.BundleEvent {
	t.Helper()
	e, ok := <-r.Events()
	if !ok {
		t.Fatal("the feed has ended")
	}
	h := r.at[e.Bundle]
	switch {
	case h == nil || e.Whole:
		if h == nil && !e.Whole {
			t.Fatalf("a change of %v comes before the whole", e.Bundle)
		}
		h = &held{objects: make(map[model.Key]model.Object)}
		r.at[e.Bundle] = h
	case e.Revision <= h.rev:
		t.Fatalf("%v: revision %d after %d", e.Bundle, e.Revision, h.rev)
	case !e.Over && e.Seq != h.seq+1:
		t.Fatalf("%v: change %d after %d", e.Bundle, e.Seq, h.seq)
	}
	h.seq, h.rev = e.Seq, e.Revision
	if e.Over {
		if e.Seq != 0 || len(e.Objects)+len(e.Gone) > 0 {
			t.Fatalf("over: %+v", e)
		}
		clear(h.objects)
	}
	for _, o := range e.Objects {
		h.objects[model.KeyOf(o)] = o
	}
	for _, k := range e.Gone {
		if h.objects[k] == nil {
			t.Fatalf("%v: %v goes and was not there", e.Bundle, k)
		}
		delete(h.objects, k)
	}
	return e
}

// bundlesOf computes from lists what all bundles are to hold.
func bundlesOf(t *testing.T, s store.Store) map[model.Bundle]map[model.Key]model.Object {
	t.Helper()
	g := model.NewGraph()
	for _, o := range state(t, s) {
		g.Load(o)
	}
	all := make(map[model.Bundle]map[model.Key]model.Object)
	for _, k := range model.Kinds {
		for o := range g.All(k) {
			for _, b := range g.Bundles(o) {
				if all[b] == nil {
					all[b] = make(map[model.Key]model.Object)
				}
				all[b][model.KeyOf(o)] = o
			}
		}
	}
	return all
}

// compare takes events until all that is wanted is what lists say, and at last compares digests.
func (r *replica) compare(t *testing.T, s Parts) {
	t.Helper()
	all := bundlesOf(t, s)
	same := func() string {
		for b, h := range r.at {
			got := make(map[model.Key]model.Object)
			for k, o := range h.objects {
				c := model.Clone(o)
				if want := all[b][k]; want != nil {
					c.GetMeta().Revision = want.GetMeta().Revision // that of being here may be later
				}
				got[k] = c
			}
			want := all[b]
			if want == nil {
				want = map[model.Key]model.Object{}
			}
			if d := diff(want, got); d != "" {
				return d
			}
		}
		return ""
	}
	for same() != "" {
		select {
		case <-withPatience(t).Done():
			t.Fatalf("bundles are not what is listed (-want +got):\n%s", same())
		default:
			r.next(t)
		}
	}
	for b, h := range r.at {
		ds, err := s.Digests(withPatience(t), b)
		if err != nil {
			t.Fatal(err)
		}
		want := store.Digest{Seq: h.seq}
		for _, o := range h.objects {
			want.Add(o.GetMeta().Revision)
		}
		for ds[0] != want && ds[0].Seq > h.seq { // the same content was written again: that is still to come
			r.next(t)
			want = store.Digest{Seq: h.seq}
			for _, o := range h.objects {
				want.Add(o.GetMeta().Revision)
			}
		}
		if ds[0] != want {
			t.Errorf("%v: digest %+v, the feed's objects have %+v", b, ds[0], want)
		}
	}
}

func testBundlesWhole(t *testing.T, c PartsCluster) {
	s := c.Open(t)
	r := feed(t, s)
	nothing := model.Bundle{Kind: model.BundleBridge, ID: id(1)}
	r.Want(nothing)
	if e := r.next(t); e.Bundle != nothing || !e.Whole || e.Seq != 0 || len(e.Objects) > 0 {
		t.Errorf("of nothing: %+v", e)
	}
	mustTxn(t, s, create(network()...)...)
	if e := r.next(t); e.Bundle != nothing || e.Whole || e.Seq != 1 || len(e.Objects) == 0 {
		t.Errorf("created: %+v", e)
	}
	for b := range bundlesOf(t, s) {
		r.Want(b)
	}
	for range bundlesOf(t, s) {
		if e := r.next(t); !e.Whole {
			t.Errorf("%+v", e)
		}
	}
	r.compare(t, s)
}

func testBundlesChange(t *testing.T, c PartsCluster) {
	s, other := c.Open(t), c.Open(t)
	base := []model.Object{
		bridge(1, "a"), bridge(2, "b"), &model.Router{Meta: model.Meta{ID: id(3)}}, &model.Host{Meta: model.Meta{ID: id(4)}}, &model.Host{Meta: model.Meta{ID: id(5)}},
		&model.SecurityGroup{Meta: model.Meta{ID: id(6), Name: "default"}, Stateful: true}, &model.SecurityGroup{Meta: model.Meta{ID: id(7)}},
	}
	mustTxn(t, s, create(base...)...)
	r := feed(t, s)
	wanted := []model.Bundle{{Kind: model.BundleBridge, ID: id(1)}, {Kind: model.BundleBridge, ID: id(2)}, {Kind: model.BundleRouter, ID: id(3)},
		{Kind: model.BundleBindings, ID: id(4)}, {Kind: model.BundleBindings, ID: id(5)}, {Kind: model.BundleMembers, ID: id(7)},
		{Kind: model.BundlePort, ID: id(11)}, model.DefaultOf(""), model.AllBalancers}
	r.Want(wanted...)
	for range wanted {
		r.next(t)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	there := make(map[model.Key]bool)
	for i := range 100 {
		n := byte(11 + rnd.IntN(6))
		var o model.Object
		switch rnd.IntN(6) {
		case 0:
			o = &model.Binding{Meta: model.Meta{ID: id(n)}, PortID: id(n), HostID: id(byte(4 + rnd.IntN(2))), Interface: "tap" + string('a'+rune(n))}
		case 1:
			o = &model.Subnet{Meta: model.Meta{ID: id(byte(30 + rnd.IntN(2)))}, BridgeID: id(byte(1 + rnd.IntN(2))), CIDR: netip.MustParsePrefix("10.0.0.0/24"), MTU: 1400, LeaseTime: 60}
		case 2:
			o = &model.FloatingIP{Meta: model.Meta{ID: id(40)}, PortID: id(12), Address: netip.MustParsePrefix("10.0.0.50/32").Addr(), FixedAddress: netip.MustParsePrefix("10.9.0.50/32").Addr()}
		default:
			p := &model.Port{Meta: model.Meta{ID: id(n)}, BridgeID: id(byte(1 + rnd.IntN(2))), MAC: match.MAC{2, 5: n}, PortSecurity: rnd.IntN(2) == 0}
			if rnd.IntN(2) == 0 {
				p.PeerID = id(byte(11 + rnd.IntN(6)))
			}
			if n%2 == 0 {
				p.BridgeID, p.RouterID, p.PortSecurity, p.Addresses = uuid.Nil, id(3), false, []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}
				if n != 12 {
					p.Addresses = nil
				}
			} else if rnd.IntN(2) == 0 {
				p.SecurityGroups = []uuid.UUID{id(7)}
			}
			o = p
		}
		op := store.Op{Verb: store.Create, Object: o}
		if there[model.KeyOf(o)] {
			if op.Verb = store.Replace; rnd.IntN(3) == 0 {
				op.Verb = store.Delete
			}
		}
		writer := s
		if i%3 == 0 {
			writer = other // which learns by its watch what the first has done
		}
		if _, err := writer.Txn(withPatience(t), op); err == nil {
			there[model.KeyOf(o)] = op.Verb != store.Delete
			r.compare(t, s)
		}
	}
	if n := len(maps.Collect(maps.All(there))); n < 8 {
		t.Errorf("only %d objects have been there", n)
	}
}

func testBundlesLeave(t *testing.T, c PartsCluster) {
	s := c.Open(t)
	mustTxn(t, s, create(bridge(1, "a"), bridge(2, "b"))...)
	r := feed(t, s)
	a, b := model.Bundle{Kind: model.BundleBridge, ID: id(1)}, model.Bundle{Kind: model.BundleBridge, ID: id(2)}
	r.Want(a, b)
	r.next(t)
	r.next(t)
	r.Leave(a)
	r.Want(b) // once more
	if e := r.next(t); e.Bundle != b || !e.Whole {
		t.Errorf("%+v", e)
	}
	for range 3 {
		mustTxn(t, s, store.Op{Verb: store.Replace, Object: bridge(1, "a")}, store.Op{Verb: store.Replace, Object: bridge(2, "b")})
		if e := r.next(t); e.Bundle != b || e.Whole {
			t.Errorf("%+v", e)
		}
	}
	r.Want(a)
	if e := r.next(t); e.Bundle != a || !e.Whole || e.Seq != 4 {
		t.Errorf("%+v", e)
	}
}

// An object that is deleted and made again begins anew.
func testBundlesOver(t *testing.T, c PartsCluster) {
	s := c.Open(t)
	mustTxn(t, s, create(bridge(1, "a"))...)
	mustTxn(t, s, store.Op{Verb: store.Replace, Object: bridge(1, "aa")})
	r := feed(t, s)
	r.Want(model.Bundle{Kind: model.BundleBridge, ID: id(1)})
	if e := r.next(t); e.Seq != 2 {
		t.Errorf("%+v", e)
	}
	mustTxn(t, s, store.Op{Verb: store.Delete, Object: bridge(1, "")})
	if e := r.next(t); !e.Over {
		t.Errorf("%+v", e)
	}
	mustTxn(t, s, create(bridge(1, "again"))...)
	if e := r.next(t); e.Seq != 1 || len(e.Objects) != 1 {
		t.Errorf("%+v", e)
	}
	r.compare(t, s)
}

// A mark says that all changes before it have been told; those of what is not wanted, too.
func testBundlesMark(t *testing.T, c PartsCluster) {
	s := c.Open(t)
	rev := mustTxn(t, s, create(bridge(1, "a"), bridge(2, "b"))...)
	r := feed(t, s)
	a, b := model.Bundle{Kind: model.BundleBridge, ID: id(1)}, model.Bundle{Kind: model.BundleBridge, ID: id(2)}
	r.Want(a)
	r.Mark() // before the whole has come
	seq := int64(0)
	mark := func(at int64) {
		t.Helper()
		for {
			e, ok := <-r.Events()
			switch {
			case !ok:
				t.Fatal("the feed has ended")
			case !e.Mark:
				if e.Bundle == a {
					seq = e.Seq
				}
				continue
			case e.Revision < at:
				r.Mark()
				continue
			}
			return
		}
	}
	mark(rev)
	for i := range 20 {
		if i%4 == 0 {
			r.Want(b) // a bundle that comes meanwhile does not hide what another lacks
		}
		rev = mustTxn(t, s, store.Op{Verb: store.Replace, Object: bridge(byte(1+i%2), "ab"[i%2:i%2+1])})
		r.Mark()
		if mark(rev); seq != int64(2+i/2) {
			t.Fatalf("marked at %d without change %d: only %d", rev, 2+i/2, seq)
		}
	}
}

// A whole that comes is not newer than what has come of others.
func testBundlesInOrder(t *testing.T, c PartsCluster) {
	s, w := c.Open(t), c.Open(t)
	mustTxn(t, s, create(bridge(1, "a"), bridge(2, "b"))...)
	r := feed(t, s)
	a, b := model.Bundle{Kind: model.BundleBridge, ID: id(1)}, model.Bundle{Kind: model.BundleBridge, ID: id(2)}
	r.Want(a)
	r.next(t)
	stop, written := make(chan struct{}), make(chan []int64)
	go func() {
		var revs []int64
		defer func() { written <- revs }()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			rev, err := w.Txn(context.Background(), store.Op{Verb: store.Replace, Object: bridge(1, fmt.Sprint("a", n))})
			if err != nil {
				t.Error(err)
				return
			}
			revs = append(revs, rev)
		}
	}()
	type come struct{ whole, other int64 }
	var wholes []come
	for range 200 {
		r.Want(b)
		for {
			if e := r.next(t); e.Bundle == b {
				wholes = append(wholes, come{e.Revision, r.at[a].rev})
				break
			}
		}
	}
	close(stop)
	for {
		select {
		case revs := <-written:
			for _, x := range wholes {
				for _, rev := range revs {
					if rev <= x.whole && rev > x.other {
						t.Fatalf("a whole of revision %d comes while %d is the last that has come of another, which has changed at %d", x.whole, x.other, rev)
					}
				}
			}
			return
		case <-r.Events(): // whoever asks has to read
		}
	}
}

func testBundlesEnd(t *testing.T, c PartsCluster) {
	s := c.Open(t)
	mustTxn(t, s, create(bridge(1, "a"))...)
	end := func(r *replica) {
		for e := range r.Events() {
			_ = e // what was under way
		}
	}
	r := feed(t, s)
	r.Want(model.Bundle{Kind: model.BundleBridge, ID: id(1)})
	r.next(t)
	r.cancel()
	end(r)
	r = feed(t, s)
	r.Want(model.Bundle{Kind: model.BundleBridge, ID: id(1)})
	r.next(t)
	c.Cut(t)
	end(r)
	if _, err := s.Digests(withPatience(t), model.AllBalancers); err == nil {
		t.Error("digests of a store that is away")
	}
	c.Heal(t)
	r = feed(t, s)
	r.Want(model.Bundle{Kind: model.BundleBridge, ID: id(1)})
	r.compare(t, s)
}
