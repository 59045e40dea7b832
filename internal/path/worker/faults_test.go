package worker

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/htb"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/prep"
)

// Whatever goes wrong in the datapath and in the worker itself, and whatever is reconfigured meanwhile: every packet ends in one way and
// every token comes back.
func TestAccountsUnderFaults(t *testing.T) {
	var r *rig
	broken := errors.New("injected")
	lines := []string{
		aToC, "a arp eth=a>broadcast ip=10.0.1.10>10.0.1.1", aToC + " ttl=1", "a udp eth=a>r:blue ip=10.0.1.10>10.0.2.77 ports=1000>53",
		"a echo eth=a>r:blue ip=10.0.1.10>10.0.1.1", "c udp eth=c>r:red ip=10.0.2.10>10.0.1.10 ports=53>1000",
	}
	rapid.Check(t, func(rt *rapid.T) {
		r = newRig(t, twoSubnets, Config{})
		for step := range rapid.IntRange(5, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 7).Draw(rt, "what") {
			case 0:
				every := rapid.IntRange(1, 3).Draw(rt, "every")
				n := 0
				fail := func() error {
					if n++; n%every == 0 {
						return broken
					}
					return nil
				}
				r.dp.SetFaults(fake.Faults{
					PutFlow: func(int, *datapath.Flow) error { return fail() }, DelFlows: func([]match.Key) error { return fail() },
					Execute: func(*datapath.Exec) error { return fail() }, MaxFlows: rapid.IntRange(0, 3).Draw(rt, "flows"),
				})
			case 1:
				r.dp.SetFaults(fake.Faults{})
			case 2: // the worker panics at what comes
				r.broken(func() {
					r.in(rapid.SampledFrom(lines).Draw(rt, "line"))
					r.turn()
				})
			case 3:
				c := htb.DefaultConfig()
				c.Global, c.VM = rapid.Int64Range(1, 300).Draw(rt, "global"), rapid.Int64Range(0, 40).Draw(rt, "vm")
				r.policy.Reconfigure(c)
			case 4:
				r.w.Reconfigure(Config{Flow: flow.Config{MaxFlows: rapid.IntRange(1, 50).Draw(rt, "max")},
					Prep: prep.Config{HeldPerFlow: rapid.IntRange(1, 3).Draw(rt, "held"), ParkPerPort: rapid.IntRange(1, 3).Draw(rt, "parked")}})
			case 5:
				r.advance(time.Duration(rapid.IntRange(1, 7000).Draw(rt, "ms")) * time.Millisecond)
			default:
				for range rapid.IntRange(1, 12).Draw(rt, "burst") {
					r.in(rapid.SampledFrom(lines).Draw(rt, "line"))
				}
				if rapid.Bool().Draw(rt, "new") {
					r.in(fmt.Sprintf("a udp eth=a>r:blue ip=10.0.1.10>10.0.2.10 ports=%d>53", 2000+step))
				}
			}
			if rapid.Bool().Draw(rt, "turn") {
				r.turn()
			}
		}
		r.dp.SetFaults(fake.Faults{})
		r.turn()
		r.check()
		if a := r.policy.Account(); a.Held != a.Total || a.Debt != 0 || a.InFlight != 0 {
			rt.Fatalf("%+v", a)
		}
		if t.Failed() {
			rt.Fatal("the accounts do not add up")
		}
	})
}
