package mirror

import (
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// What another host says of its port counts while the store is away, unless something later is known, and agrees with what the store tells when it is back.
func TestOwner(t *testing.T) {
	server := mem.NewServer()
	w := server.Client()
	defer w.Close()
	if _, err := w.Txn(t.Context(), create(sample()...)...); err != nil {
		t.Fatal(err)
	}
	r := newPart(server)
	defer r.close()
	r.quiesce(t)
	known := r.graph.Get(model.KindBinding, vm1).GetMeta().Revision
	var bindings []Binding
	r.Subscribe(func(c Change) {
		if c.BindingsChanged {
			bindings = c.Bindings
		}
	})
	has := func(what string, host uuid.UUID) {
		t.Helper()
		p := r.Snapshot().Port(vm1)
		if p == nil || p.Host != host {
			t.Fatalf("%s: the port is %+v, want it at %s", what, p, host)
		}
		if mine := slices.ContainsFunc(bindings, func(b Binding) bool { return b.Port == vm1 }); bindings != nil && mine != (host == here) {
			t.Fatalf("%s: this host has %+v", what, bindings)
		}
	}
	step := func() {
		t.Helper()
		if did, err := r.steps.Step(t.Context()); !did || err != nil {
			t.Fatal(did, err)
		}
	}
	r.store.breakFeed()
	for err := error(nil); err == nil; {
		_, err = r.steps.Step(t.Context())
	}
	r.SetOwner(vm1, there, known)
	step()
	has("what was known already", here)
	// The store gives the port to the other host, and this one does not hear of it.
	if _, err := w.Txn(t.Context(), replace(binding(vm1, there, "tap9"))); err != nil {
		t.Fatal(err)
	}
	rev, err := w.Txn(t.Context(), replace(binding(vm1, there, "tap9").Released()))
	if err != nil {
		t.Fatal(err)
	}
	changes := r.Stats().Changes
	r.SetOwner(vm1, there, rev)
	step()
	has("the other host says so", there)
	if r.Stats().Changes == changes {
		t.Error("nothing says that it is to be kept on disk")
	}
	r.SetOwner(uuid.UUID{99}, there, rev) // of a port that nobody knows here
	step()
	r.quiesce(t)
	has("the store is back", there)
	if b := r.graph.Get(model.KindBinding, vm1).(*model.Binding); b.Interface != "tap9" || b.Revision != rev {
		t.Errorf("the store's binding: %+v", b)
	}
	if _, err := w.Txn(t.Context(), replace(binding(vm1, here, "tap1")), replace(binding(vm2, here, "tap2"))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Txn(t.Context(), replace(binding(vm1, here, "tap1").Released())); err != nil {
		t.Fatal(err)
	}
	r.quiesce(t)
	has("it has moved back", here)
	r.SetOwner(vm1, there, rev)
	step()
	has("what is over is said once more", here)
	if err := r.steps.Compare(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.quiesce(t)
	if n := r.Stats().Mended; n != 0 {
		t.Errorf("%d parts differed from the store", n)
	}
}
