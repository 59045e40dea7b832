package sim

import (
	"flag"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

var (
	seed  = flag.String("seed", "", "run this seed alone, and print all that happens")
	seeds = flag.Uint64("seeds", 200, "run so many seeds")
	first = flag.Uint64("first", 1, "the first of them")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSeeds runs random clouds. `make sim SEED=n` prints all that happens in one, `make sim SEEDS=n` runs many.
func TestSeeds(t *testing.T) {
	if *seed != "" {
		n, err := strconv.ParseUint(*seed, 0, 64)
		if err != nil {
			t.Fatalf("-seed: %v", err)
		}
		tell(t, n)
		return
	}
	if *seeds == 0 {
		t.Fatal("-seeds 0: no seed is run, and nothing is shown by that")
	}
	next, results := make(chan uint64), make(chan Result)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for n := range next {
				results <- Run(NewPlan(n), nil)
			}
		})
	}
	go func() {
		for i := range *seeds {
			next <- *first + i
		}
		close(next)
		wg.Wait()
		close(results)
	}()
	var failed []uint64
	var sent, delivered, steps int
	for r := range results {
		sent, delivered, steps = sent+r.Sent, delivered+r.Delivered, steps+r.Steps
		if len(r.Failures) > 0 {
			failed = append(failed, r.Seed)
			t.Errorf("seed %d: %v", r.Seed, r.Failures[0])
		}
	}
	if len(failed) > 0 {
		slices.Sort(failed)
		p := Shrink(NewPlan(failed[0]))
		t.Logf("the shortest story of it:\n%s", Story(p))
	}
	t.Logf("%d seeds, %d of them fail %v; %d steps, %d packets sent, %d delivered", *seeds, len(failed), failed, steps, sent, delivered)
}

// tell runs one seed, twice, and prints what happens.
func tell(t *testing.T, seed uint64) {
	r := Run(NewPlan(seed), func(line string) { os.Stdout.WriteString(line + "\n") })
	for _, f := range r.Failures {
		t.Error(f)
	}
	t.Logf("seed %d: trace %016x, %d steps, %d packets sent, %d delivered", seed, r.Trace, r.Steps, r.Sent, r.Delivered)
	if again := Run(NewPlan(seed), nil); again.Trace != r.Trace {
		t.Errorf("once more: trace %016x: the seed does not say all", again.Trace)
	}
}

// TestRepeats: a seed is all that a run depends on, whether or not somebody reads along.
func TestRepeats(t *testing.T) {
	n := uint64(10)
	if testing.Short() {
		n = 3
	}
	for i := range n {
		var one, two []string
		a := Run(NewPlan(i+1), func(line string) { one = append(one, line) })
		b := Run(NewPlan(i+1), func(line string) { two = append(two, line) })
		c := Run(NewPlan(i+1), nil)
		if a.Trace != b.Trace || b.Trace != c.Trace {
			t.Errorf("seed %d: %016x, %016x, %016x", i+1, a.Trace, b.Trace, c.Trace)
		}
		for j := range min(len(one), len(two)) {
			if one[j] != two[j] {
				t.Errorf("line %d:\n%s\nand then\n%s", j, one[j], two[j])
				break
			}
		}
	}
}

// twoHosts runs a cloud of the hosts h1, which has the VM a, and h2.
func twoHosts(t *testing.T) *Sim {
	t.Helper()
	x := &script{n: &network{}}
	x.s = newSim(1, t.TempDir(), nil)
	x.n.add(&model.TunnelZone{Meta: meta("zone")})
	for _, line := range []string{"host h1 h2", "bridge net", "vm a net h1 10.0.0.10", "start"} {
		if err := x.do(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
	}
	return x.s
}

// TestOwnersAreJudged: a port that is taken by force from a host that lives is seen to have two owners.
func TestOwnersAreJudged(t *testing.T) {
	s := twoHosts(t)
	b := model.Clone(s.store.graph.Get(model.KindBinding, id("a"))).(*model.Binding)
	b.HostID, b.FromID = id("h2"), id("h2")
	s.commit("by force", replace(b))
	for _, h := range s.hosts {
		h.checkOwners()
	}
	if len(s.failures) != 1 || s.failures[0].Broken != "a port has one owner" {
		t.Errorf("%v", s.failures)
	}
	for _, h := range s.hosts {
		h.kill()
	}
}

// TestBackFromTheDead: a host that was dead, and is back, lets go of its port itself, though the one that is to have it has not heard that it is.
func TestBackFromTheDead(t *testing.T) {
	s := twoHosts(t)
	h1, h2 := s.host("h1"), s.host("h2")
	s.runFor(10 * time.Second) // who has begun just now takes nobody for dead
	h1.client.cut(true)
	s.runFor(15 * time.Second)
	if h := h2.agent.Mirror().Snapshot().Hosts[h1.id]; h == nil || !h.Dead {
		t.Fatalf("h1 is not taken for dead: %+v", h)
	}
	for _, w := range h2.client.learnt {
		w.last = s.now() + int64(time.Minute) // that is when it hears
	}
	h1.client.cut(false)
	s.runFor(3 * time.Second)
	h1.client.slow = 200 * time.Millisecond // so long it goes on
	b := model.Clone(s.store.graph.Get(model.KindBinding, id("a"))).(*model.Binding)
	b.HostID = h2.id
	s.commit("a moves", replace(b))
	s.runFor(3 * time.Second)
	if !h2.agent.Mirror().Snapshot().Hosts[h1.id].Dead {
		t.Error("h2 has heard too soon for this to tell anything")
	}
	if b := s.store.graph.Get(model.KindBinding, id("a")).(*model.Binding); len(s.failures) > 0 || b.Owner() != h2.id {
		t.Errorf("%v; host %s has the port", s.failures, s.hostOf(b.Owner()).name)
	}
	for _, h := range s.hosts {
		h.kill()
	}
}

// TestOutage: an hour without the store loses no packet between VMs that have talked before, of old and of new connections.
func TestOutage(t *testing.T) {
	n := uint64(20)
	if testing.Short() {
		n = 3
	}
	for i := range n {
		var tail []string
		r := Outage(i+1, func(line string) { tail = append(tail[max(0, len(tail)-200):], line) })
		if len(r.Failures) > 0 {
			t.Errorf("seed %d: %v\n%s", i+1, r.Failures, strings.Join(tail, "\n"))
		} else if r.Delivered == 0 {
			t.Errorf("seed %d: nobody has reached anybody", i+1)
		}
	}
}

// TestNamedSeeds: seeds that have found what was wrong, by what it was. Each bug has a test of its own beside the code as well: what a seed means
// changes with the plans.
func TestNamedSeeds(t *testing.T) {
	for name, n := range map[string]uint64{
		"what could not be told to other hosts is forgotten":      176,
		"an adopted flow translates without a connection":         137,
		"a flow floods to what its own packet taught":             531,
		"what was told in an earlier session is never taken back": 165,
		"a block is claimed and nobody knows":                     160,
		"messages of other hosts that wait are not counted":       603,
		"a worker waits for who does not wait for it":             1050,
		"a port waits for its filter, and a router does not":      2021,
		"a port is taken from a host that is back":                6452,
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPlan(n)
			if f := firstFailure(p); f.Broken != "" {
				t.Errorf("seed %d: %v\n%s", n, f, Story(Shrink(p)))
			}
		})
	}
}
