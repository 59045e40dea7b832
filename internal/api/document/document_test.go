package document_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

func parse(t *testing.T, text string) *document.Set {
	t.Helper()
	s, err := document.Parse(strings.NewReader(text), "f")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"a: [":                        "f:1:4: ",
		"text":                        "f:1:1: a document is a mapping",
		"- - {kind: bridge}":          "f:1:3: a list of documents may not hold lists",
		"&a [*a]":                     "may not hold lists",
		"name: x":                     "f:1:1: kind: is missing",
		"kind: [bridge]":              "kind: is missing",
		"kind: zebra":                 "f:1:7: kind: no kind \"zebra\": there are address_group, binding, bridge",
		"kind: bridge":                "f:1:1: bridge: name: is missing",
		"{kind: bridge, name: [x]}":   "bridge: name: wants a text, this is a list",
		"{kind: bridge, name: *x}":    "refers to no anchor",
		"{kind: host, name: h, a: 1}": "host h: a: unknown field: there are id, name",
		"{kind: bridge, name: b, admin_state_up: maybe}":                  "admin_state_up: \"maybe\" is not true or false",
		"{kind: route, name: r, router: r1}":                              "route r: destination: is missing",
		"{kind: port, name: p, bridge: b, binding: {host: h}}":            "port p: binding.interface: is missing",
		"{kind: port, name: p, bridge: b, binding: h1}":                   "port p: binding: wants a mapping",
		"{kind: route, name: r, router: r, destination: d, weight: high}": "weight: \"high\" is not a number",
	} {
		_, err := document.Parse(strings.NewReader(text), "f")
		var errs document.Errors
		if !errors.As(err, &errs) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestScalarsAndAnchors(t *testing.T) {
	s := parse(t, "- {kind: port, name: &n 12, bridge: true, addresses: &a [10.0.0.1]}\n- {kind: port, name: 0x1, bridge: *n, addresses: *a}\n")
	first, second := s.Docs[0].Value.(*document.Port), s.Docs[1].Value.(*document.Port)
	if first.Name != "12" || first.Bridge != "true" || second.Name != "0x1" || second.Bridge != "12" || second.Addresses[0] != "10.0.0.1" {
		t.Errorf("%+v %+v", first, second)
	}
}

func TestOthersAreDecodedByTheirOwner(t *testing.T) {
	s := parse(t, "kind: vm\nname: vm1\nimage: {size: 3}\n")
	if len(s.Others) != 1 || s.Others[0].Kind != "vm" || s.Others[0].Pos.String() != "f:1:1" {
		t.Fatalf("%+v", s.Others)
	}
	var vm struct {
		Name  string `yaml:"name,required"`
		Image struct {
			Size int `yaml:"size"`
		} `yaml:"image"`
	}
	if err := s.Others[0].Decode(&vm); err != nil || vm.Name != "vm1" || vm.Image.Size != 3 {
		t.Errorf("%v %+v", err, vm)
	}
	var less struct {
		Name string `yaml:"name"`
	}
	if err := s.Others[0].Decode(&less); err == nil || !strings.Contains(err.Error(), "f:3:1: vm vm1: image: unknown field") {
		t.Errorf("got %v", err)
	}
}

// TestApplyStartsOver: an object changes between plan and transaction.
func TestApplyStartsOver(t *testing.T) {
	st := &meddled{Store: mem.New()}
	if _, err := parse(t, "{kind: bridge, name: b}").Apply(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	list, _, err := st.List(t.Context(), model.KindBridge)
	if err != nil {
		t.Fatal(err)
	}
	st.meddle = func() {
		other := *list[0].(*model.Bridge)
		if _, err := st.Store.Txn(t.Context(), store.Op{Verb: store.Replace, Object: &other}); err != nil {
			t.Error(err)
		}
	}
	changes, err := parse(t, "{kind: bridge, name: b, admin_state_up: false}").Apply(t.Context(), st)
	if err != nil || len(changes) != 1 || changes[0].Action != document.Configured {
		t.Fatalf("%v, %v", changes, err)
	}
	o, err := st.Get(t.Context(), model.KindBridge, list[0].GetMeta().ID)
	if err != nil || o.(*model.Bridge).AdminStateUp {
		t.Errorf("%+v, %v", o, err)
	}
}

// FuzzParse: whatever the text, an error has a place in it and nothing panics.
func FuzzParse(f *testing.F) {
	f.Add("kind: bridge\nname: b\n---\n- {kind: port, name: p, bridge: b, binding: {host: h, interface: i}}\n")
	f.Add("&a [*a]")
	f.Add("kind: vm\n<<: {a: 1}\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := document.Parse(strings.NewReader(text), "f")
		var errs document.Errors
		if (s == nil) == (err == nil) || err != nil && !errors.As(err, &errs) {
			t.Errorf("%v, %v", s, err)
		}
	})
}
