package sim

import (
	"fmt"
	"slices"
	"strings"
)

// Shrink leaves out of a plan that fails as many steps as it can while the same invariant is still broken first.
func Shrink(p *Plan) *Plan {
	broken := func(steps []Step) bool {
		r := Run(&Plan{Seed: p.Seed, Steps: steps}, nil)
		return len(r.Failures) > 0 && r.Failures[0].Broken == firstFailure(p).Broken
	}
	steps := p.Steps
	for size := len(steps); size > 0; size /= 2 {
		for at := 0; at < len(steps); {
			rest := slices.Delete(slices.Clone(steps), at, min(at+size, len(steps)))
			if broken(rest) {
				steps = rest
			} else {
				at += size
			}
		}
	}
	return &Plan{Seed: p.Seed, Steps: steps}
}

// firstFailure is how a plan fails first; the zero Failure: it does not.
func firstFailure(p *Plan) (f Failure) {
	if p.fails == nil {
		r := Run(p, nil)
		p.fails = &f
		if len(r.Failures) > 0 {
			p.fails = &r.Failures[0]
		}
	}
	return *p.fails
}

// Story tells a run: what was done to the cloud, what was found broken, and of the packet that shows it every line and, on each host, what
// the workers made of its connection.
func Story(p *Plan) string {
	var lines []string
	r := Run(p, func(line string) { lines = append(lines, line) })
	if len(r.Failures) == 0 {
		return "nothing is broken\n"
	}
	f := r.Failures[0]
	var packet, ports string
	if f.Packet != 0 {
		packet = number(f.Packet)
		ports = fmt.Sprintf("port=%d ", r.ports[f.Packet>>16])
		if r.ports[f.Packet>>16] == 0 {
			ports = packet
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %d steps:\n", p.Seed, len(p.Steps))
	for _, line := range lines {
		event := !strings.Contains(line, " sends ") && !strings.Contains(line, " gets ") && !strings.Contains(line, " -> ") && !strings.Contains(line, "store: ") && !strings.Contains(line, ": packet")
		if event && !strings.Contains(line, "begins") || packet != "" && (strings.Contains(line, packet) || strings.Contains(line, ": packet") && strings.Contains(line, ports)) {
			b.WriteString(line + "\n")
		}
		if strings.Contains(line, "VIOLATED") {
			break
		}
	}
	return b.String()
}
