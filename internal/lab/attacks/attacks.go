// Package attacks is the attack suite: what rogue VMs do to take more than their share, and the network in which they do it.
package attacks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// Attack is one way.
type Attack struct {
	Name   string
	Mode   traffic.Mode
	Target string // address, or prefix of destinations
	Free   bool   // by VMs without port security and groups, which may forge their source
	Policy bool   // with the rules of Policy in the rogues' group
}

// Where attacks go to: carol swallows what comes, and has a route's worth of addresses; world is behind address translation.
const (
	sink      = "10.0.2.66"
	sinkRoute = "10.128.0.0/9"
	world     = "203.0.113.100"
)

// All attacks. A rogue's ports have port security and a security group unless the attack is from free ones.
var All = []Attack{
	{Name: "ports", Mode: traffic.ModePorts, Target: sink},
	{Name: "destinations", Mode: traffic.ModeDestinations, Target: sinkRoute},
	{Name: "sources", Mode: traffic.ModeSources, Target: sink},
	{Name: "sources-free", Mode: traffic.ModeSources, Target: sink, Free: true},
	{Name: "macs", Mode: traffic.ModeMACs, Target: sink},
	{Name: "macs-free", Mode: traffic.ModeMACs, Target: sink, Free: true},
	{Name: "unknown-macs", Mode: traffic.ModeUnknown, Target: sink, Free: true},
	{Name: "tuples", Mode: traffic.ModeTuples, Target: sinkRoute},
	{Name: "arp", Mode: traffic.ModeARP, Target: sink},
	{Name: "nd", Mode: traffic.ModeND, Target: sink},
	{Name: "storm", Mode: traffic.ModeStorm, Target: sink},
	{Name: "fragments", Mode: traffic.ModeFragments, Target: sink},
	{Name: "connections", Mode: traffic.ModeSYN, Target: sink},
	{Name: "nat", Mode: traffic.ModePorts, Target: world},
	{Name: "dhcp", Mode: traffic.ModeDHCP, Target: sink},
	{Name: "ttl", Mode: traffic.ModeTTL, Target: sink},
	{Name: "expensive", Mode: traffic.ModeExpensive, Target: sinkRoute},
	{Name: "sizes", Mode: traffic.ModeSizes, Target: sink},
	{Name: "mixed", Mode: traffic.ModeMixed, Target: sinkRoute, Free: true},
	{Name: "policy", Mode: traffic.ModeTuples, Target: sinkRoute, Policy: true}, // last: the rules stay
}

// Choose finds attacks by name; no names mean all.
func Choose(names string) ([]Attack, error) {
	if names == "" {
		return All, nil
	}
	var list []Attack
	var known []string
	for _, a := range All {
		known = append(known, a.Name)
	}
next:
	for name := range strings.SplitSeq(names, ",") {
		for _, a := range All {
			if a.Name == name {
				list = append(list, a)
				continue next
			}
		}
		return nil, fmt.Errorf("attack %q: there are %s", name, strings.Join(known, ", "))
	}
	return list, nil
}

// Rogue is the name of the i-th rogue VM, from 0, with port security or without.
func Rogue(i int, free bool) string {
	if free {
		return fmt.Sprintf("free%d", i)
	}
	return fmt.Sprintf("rogue%d", i)
}

// Running is an attack under way.
type Running struct{ floods []*tool.Process }

// Force of an attack.
type Force struct {
	Rogues   int
	Rate     int           // frames per second of all rogues together; 0: as fast as they can
	Duration time.Duration // after which they stop by themselves
	Nice     int           // their niceness
	First    uint32        // number of the first flow
}

// Start has the rogues begin. The caller must call Stop.
func (a Attack) Start(ctx context.Context, tools tool.Runner, space func(name string) (ns.Space, error), f Force) (*Running, error) {
	r := &Running{}
	for i := range f.Rogues {
		s, err := space(Rogue(i, a.Free))
		if err == nil {
			var p *tool.Process
			p, err = tools.Start(ctx, s, "flood", "--mode="+string(a.Mode), "--target="+a.Target, fmt.Sprintf("--rate=%d", (f.Rate+f.Rogues-1)/f.Rogues),
				fmt.Sprintf("--duration=%s", f.Duration), fmt.Sprintf("--nice=%d", f.Nice), fmt.Sprintf("--first=%d", f.First+uint32(i)<<24))
			if err == nil {
				r.floods = append(r.floods, p)
			}
		}
		if err != nil {
			_, stopped := r.Stop()
			return nil, errors.Join(fmt.Errorf("attack %s: %w", a.Name, err), stopped)
		}
	}
	return r, nil
}

// Stop ends the attack and tells what was sent.
func (r *Running) Stop() (sum traffic.FloodResult, err error) {
	for _, p := range r.floods { // one after the other, the last ones would attack for as long as the first ones take to end
		p.Interrupt()
	}
	for _, p := range r.floods {
		var one traffic.FloodResult
		err = errors.Join(err, p.Wait(&one))
		sum.Sent += one.Sent
		sum.Refused += one.Refused
		sum.PerSecond += one.PerSecond
		sum.Seconds = max(sum.Seconds, one.Seconds)
	}
	return sum, err
}

// CPU is the time that the rogues have taken so far.
func (r *Running) CPU() (sum time.Duration, err error) {
	for _, p := range r.floods {
		d, err := CPUTime(p.PID())
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}
