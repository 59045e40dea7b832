package conf

import (
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Every key of the reference is either there, or there is a reason why not; never both, and no reason is for a key of another name.
func TestReferenceKeys(t *testing.T) {
	text, err := os.ReadFile("testdata/reference-keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	reference := strings.Fields(string(text))
	for _, name := range reference {
		_, err := Find(name)
		if reason := Absent(name); (err == nil) == (reason != "") {
			t.Errorf("%s: in the schema %v, reason %q", name, err == nil, reason)
		}
	}
	if len(reference) != 141 {
		t.Errorf("%d keys", len(reference))
	}
	seen := make(map[string]bool)
	for _, a := range Absences() {
		for _, name := range a.Keys {
			if !slices.Contains(reference, name) || seen[name] {
				t.Errorf("%s is no key of the reference, or is there twice", name)
			}
			seen[name] = true
		}
	}
}

func TestSchemaIsWhole(t *testing.T) {
	form := regexp.MustCompile(`^agent(\.[a-z0-9_-]+)+$`)
	fields := make(map[any]string)
	s := new(Settings)
	for _, k := range keysOf(s) {
		if !form.MatchString(k.Name) || k.Text == "" || !strings.HasSuffix(k.Text, ".") || k.Range() == "" {
			t.Errorf("%+v", k)
		}
		if c, err := k.Canonical(k.Default); err != nil || c != k.Default {
			t.Errorf("%s: default %q is kept as %q, %v", k.Name, k.Default, c, err)
		}
		p := reflect.ValueOf(k.value).FieldByName("p").Pointer()
		if other, ok := fields[p]; ok {
			t.Errorf("%s and %s are the same field", k.Name, other)
		}
		fields[p] = k.Name
	}
	if n := countFields(reflect.TypeOf(*s)); n != len(fields) {
		t.Errorf("%d fields for %d keys", n, len(fields))
	}
}

func countFields(t reflect.Type) (n int) {
	for i := range t.NumField() {
		if f := t.Field(i).Type; f.Kind() == reflect.Struct {
			n += countFields(f)
		} else {
			n++
		}
	}
	return n
}

func TestValues(t *testing.T) {
	const tokens, span, level, driver = "agent.datapath.vm_incoming_burst_capacity", "agent.flow.idle_timeout", "agent.loggers.config", "agent.datapath.driver"
	for _, c := range []struct{ key, text, want, reason string }{
		{tokens, "0", "0", ""}, {tokens, "0016", "16", ""}, {tokens, "1048576", "1048576", ""},
		{tokens, "-1", "", "is out of range: want 0 to 1048576"}, {tokens, "1048577", "", "is out of range: want 0 to 1048576"},
		{tokens, "16k", "", "want an integer, 0 to 1048576"}, {tokens, "", "", "want an integer"}, {tokens, "99999999999999999999", "", "want an integer"},
		{span, "60s", "1m", ""}, {span, "3600s", "1h", ""}, {span, "1500ms", "1.5s", ""}, {span, "61m", "", "is out of range: want 1s to 1h"},
		{span, "60", "", "want a duration such as"}, {span, "-5s", "", "is out of range"},
		{level, "DEBUG", "debug", ""}, {level, "loud", "", "want off, error, warn, info, debug or inherit"},
		{driver, "ovs", "ovs", ""}, {driver, "dpdk", "", "want auto, ebpf or ovs"},
	} {
		k, err := Find(c.key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Canonical(c.text)
		var bad *ValueError
		switch {
		case c.reason == "" && (err != nil || got != c.want):
			t.Errorf("%s %q: %q, %v", c.key, c.text, got, err)
		case c.reason != "" && (!errors.As(err, &bad) || !errors.Is(err, store.ErrInvalid) || !strings.Contains(bad.Reason, c.reason)):
			t.Errorf("%s %q: %v, want %s", c.key, c.text, err, c.reason)
		}
	}
}

func TestUnknownKeys(t *testing.T) {
	for name, want := range map[string]string{
		"agent.datapath.vm_incoming_burst_capacty": `did you mean "agent.datapath.vm_incoming_burst_capacity"?`,
		"agent.midolman.bgp_holdtime":              "routers do not speak BGP yet",
		"nonsense":                                 `no key "nonsense"`,
	} {
		_, err := Find(name)
		if !errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
