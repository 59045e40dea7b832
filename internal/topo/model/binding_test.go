package model

import (
	"testing"

	"github.com/google/uuid"
)

// Who has to let go of a port that moves is the store's to say, whatever is written.
func TestBindingMoves(t *testing.T) {
	h2, h3 := id(32), id(33)
	for _, c := range []struct {
		name  string
		steps []Binding // host and from, one written after the other; the first is that of the sample
		from  uuid.UUID // at the end
	}{
		{"again", []Binding{{HostID: h1}}, uuid.Nil},
		{"moves", []Binding{{HostID: h2}}, h1},
		{"written again while it moves", []Binding{{HostID: h2}, {HostID: h2}}, h1},
		{"released", []Binding{{HostID: h2}, {HostID: h2, FromID: h2}}, uuid.Nil},
		{"moves on before it was released", []Binding{{HostID: h2}, {HostID: h3}}, h1},
		{"moves on", []Binding{{HostID: h2}, {HostID: h2, FromID: h2}, {HostID: h3}}, h2},
		{"back before it was released", []Binding{{HostID: h2}, {HostID: h1}}, uuid.Nil},
		{"by force", []Binding{{HostID: h2, FromID: h2}}, uuid.Nil},
		{"what a reader has written back late", []Binding{{HostID: h2}, {HostID: h2, FromID: h2}, {HostID: h2, FromID: h1}}, uuid.Nil},
		{"what a stranger says", []Binding{{HostID: h2, FromID: h3}}, h1},
	} {
		g := sampleGraph(t)
		ops := [][]Op{create(&Host{Meta: Meta{ID: h2, Name: "h2"}}, &Host{Meta: Meta{ID: h3, Name: "h3"}})}
		for _, b := range c.steps {
			b.ID, b.PortID, b.Interface = vm1, vm1, "tap1"
			ops = append(ops, replace(&b))
		}
		for i, o := range ops {
			s, err := g.Stage(o...)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			s.Commit(int64(i + 2))
		}
		if b := g.Get(KindBinding, vm1).(*Binding); b.FromID != c.from {
			t.Errorf("%s: %s is to let go, want %s", c.name, b.FromID, c.from)
		}
	}
}

// A host may not go while it has a port that moves away.
func TestHostOfMovingPortStays(t *testing.T) {
	g := sampleGraph(t)
	for _, o := range [][]Op{create(&Host{Meta: Meta{ID: id(32), Name: "h2"}}), replace(&Binding{Meta: Meta{ID: vm1}, PortID: vm1, HostID: id(32), Interface: "tap1"})} {
		s, err := g.Stage(o...)
		if err != nil {
			t.Fatal(err)
		}
		s.Commit(2)
	}
	if _, err := g.Stage(remove(&Host{Meta: Meta{ID: h1}})...); err == nil {
		t.Error("the host is deleted")
	}
}
