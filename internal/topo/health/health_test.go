package health

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
)

func id(n byte) uuid.UUID { return uuid.UUID{n, 15: 1} }

func TestText(t *testing.T) {
	at := time.Date(2026, 11, 29, 3, 0, 1, 0, time.UTC)
	r := Report{
		id(1): {id(2): {Up: true}, id(3): {Reason: "connection refused"}},
		id(4): {id(2): {Reason: "two\n lines", Since: at}, id(3): {Up: true, Since: at}},
	}
	want := Report{id(1): r[id(1)], id(4): {id(2): {Reason: "two lines", Since: at}, id(3): {Up: true, Since: at}}}
	if got := Parse(r.Text()); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := Parse("nonsense\n" + id(1).String() + " x up\n\n"); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// TestElected: one host for each router, and when one goes, what it checked goes to others, and nothing else moves.
func TestElected(t *testing.T) {
	hosts := []uuid.UUID{id(1), id(2), id(3)}
	all, less := State{Hosts: hosts}, State{Hosts: hosts[:2]}
	share := map[uuid.UUID]int{}
	for n := range byte(200) {
		router := uuid.UUID{n, n, 9}
		was, is := all.Elected(router), less.Elected(router)
		share[was]++
		if was != id(3) && is != was {
			t.Errorf("router %d went from %s to %s", n, was, is)
		}
		if reversed := (&State{Hosts: []uuid.UUID{id(3), id(2), id(1)}}).Elected(router); reversed != was {
			t.Errorf("router %d: the order of hosts matters", n)
		}
	}
	if len(share) != 3 {
		t.Errorf("%v", share)
	}
	if (&State{}).Elected(id(9)) != uuid.Nil {
		t.Error("nobody was elected, and yet somebody")
	}
}

// TestRead: what the elected host says counts; what it has not found out yet is as it was.
func TestRead(t *testing.T) {
	hosts := State{Hosts: []uuid.UUID{id(1), id(2)}}
	router := id(9)
	best, other := hosts.Elected(router), id(1)
	if best == other {
		other = id(2)
	}
	was := Report{router: {id(5): {Reason: "before"}}}
	keys := map[string]string{
		Key(best):         "",
		Key(other):        Report{router: {id(5): {Up: true}}}.Text(),
		Prefix + "nobody": "",
	}
	if got := Read(keys, was); got.Members[router][id(5)].Reason != "before" || len(got.Hosts) != 2 {
		t.Errorf("not yet checked: %+v", got)
	}
	keys[Key(best)] = Report{router: {id(5): {Reason: "now"}}}.Text()
	if got := Read(keys, was); got.Members[router][id(5)].Reason != "now" {
		t.Errorf("checked: %+v", got)
	}
	delete(keys, Key(best))
	if got := Read(keys, was); !got.Members[router][id(5)].Up {
		t.Errorf("taken over: %+v", got)
	}
}
