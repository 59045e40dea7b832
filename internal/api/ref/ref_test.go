package ref_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/ref"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

func TestFind(t *testing.T) {
	x := ref.New()
	add := func(id, name string) {
		x.Add(&model.Bridge{Meta: model.Meta{ID: uuid.MustParse(id), Name: name}})
	}
	add("abcd1111-0000-4000-8000-000000000000", "blue")
	add("abcd2222-0000-4000-8000-000000000000", "green")
	add("eeee0000-0000-4000-8000-000000000000", "abcd1") // a name like the beginning of another's id
	for s, want := range map[string]string{
		"blue": "blue", "abcd1": "abcd1", "abcd11": "blue", "ABCD2": "green",
		"abcd2222-0000-4000-8000-000000000000": "green", "eeee": "abcd1",
	} {
		if o, err := x.Find(model.KindBridge, s); err != nil || o.GetMeta().Name != want {
			t.Errorf("%q: %v, %v, want %s", s, o, err, want)
		}
	}
	for s, want := range map[string]ref.Error{
		"abcd": {Matches: 2}, "eee": {}, "bleu": {Nearest: "blue"}, "ffff": {},
	} {
		_, err := x.Find(model.KindBridge, s)
		var e *ref.Error
		if !errors.As(err, &e) || e.Matches != want.Matches || e.Nearest != want.Nearest || errors.Is(err, store.ErrNotFound) != (want.Matches == 0) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if _, err := x.Find(model.KindRouter, "blue"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another kind: %v", err)
	}
}

func TestNearest(t *testing.T) {
	for s, want := range map[string]string{
		"addreses": "addresses", "nmae": "name", "x": "", "zzzz": "", "mca": "mac",
	} {
		if got := ref.Nearest(s, []string{"name", "addresses", "mac"}); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
