package pathtest

import (
	"fmt"
	"strings"

	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// mirror adds one to a port, bridge or router that exists.
func (t *Topology) mirror(name, of, direction, to string, words []string) error {
	m := view.Mirror{ID: t.name(name), Name: name, To: t.port(to).ID}
	direction, before, _ := strings.Cut(direction, ",")
	in, out := view.InAfterFilters, view.OutAfterFilters
	if before == "before" {
		in, out = view.InBeforeFilters, view.OutBeforeFilters
	}
	switch direction {
	case "in":
		m.At = in
	case "out":
		m.At = out
	case "both":
		m.At = in | out
	default:
		return fmt.Errorf("no direction %q", direction)
	}
	c, err := t.Condition(words...)
	if err != nil {
		return err
	}
	m.Match = view.NewCondition(&c)
	switch id := ID(of); {
	case t.Ports[id] != nil:
		t.Ports[id].Mirrors = append(t.Ports[id].Mirrors, m)
	case t.Bridges[id] != nil:
		t.Bridges[id].Mirrors = append(t.Bridges[id].Mirrors, m)
	case t.Routers[id] != nil:
		t.Routers[id].Mirrors = append(t.Routers[id].Mirrors, m)
	default:
		return fmt.Errorf("no port or device %q", of)
	}
	return nil
}
