package sim

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// Plan is what a seed means. Each of its steps draws what it leaves open from a source of its own, so that one can be left out
// without changing what the others are.
type Plan struct {
	Seed  uint64
	Steps []Step // in the order of time

	fails *Failure // how it does first; nil: nobody has looked
}

// Step is something that is done to the cloud.
type Step struct {
	At   time.Duration
	Kind string
	Seed uint64
	do   func(*Sim, *rand.Rand)
}

func (p Step) String() string { return fmt.Sprintf("%v %s", p.At.Round(time.Millisecond), p.Kind) }

// The times of a run: the cloud begins; things happen; all is mended, and nobody touches anything; every kind of packet is tried; silence.
const (
	beginning = 3 * time.Second
	trouble   = 20 * time.Second
	mended    = 45 * time.Second
	probing   = 25 * time.Second
	silence   = 75 * time.Minute // blocks of ports stay a killed agent's for an hour
)

// kinds are what happens, with how often.
var kinds = []struct {
	name   string
	weight int
	do     func(*Sim, *rand.Rand)
}{
	{"talk", 30, randomTalk},
	{"change", 14, randomChange},
	{"move", 4, randomMove},
	{"fault", 8, randomFault},
}

// NewPlan is the plan of a seed.
func NewPlan(seed uint64) *Plan {
	r := rand.New(rand.NewPCG(seed, 1))
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	p := &Plan{Seed: seed}
	for i := range 10 + r.IntN(50) {
		n := r.IntN(total)
		for _, k := range kinds {
			if n -= k.weight; n < 0 {
				p.Steps = append(p.Steps, Step{At: between(r, 0, trouble), Kind: k.name, Seed: uint64(i), do: k.do})
				break
			}
		}
	}
	slices.SortStableFunc(p.Steps, func(a, b Step) int { return int(a.At - b.At) })
	return p
}

// Result is what a run has come to.
type Result struct {
	Seed      uint64
	Failures  []Failure
	Trace     uint64 // hash of all that has happened
	Steps     int
	Sent      int
	Delivered int

	ports map[uint64]uint16 // source ports of talks by their number
}

// settings are the agents': a cloud's defaults, but for what would only make runs long.
func settings(workers int) *conf.Settings {
	s := conf.Defaults()
	s.Workers = workers
	s.Conntrack.TCP = 10 * time.Minute
	s.Topology.CompareInterval, s.Topology.IdleTimeout = compareEvery, 20*time.Second
	return s
}

// Run runs a plan. log gets each line of what happens; nil: nobody reads it.
func Run(p *Plan, log func(string)) Result {
	dir, err := os.MkdirTemp("", "viaduct-sim-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s := newSim(p.Seed, dir, log)
	r := rand.New(rand.NewPCG(p.Seed, 2))
	n := randomNetwork(r)
	s.build(n, settings(1+r.IntN(2)))
	s.runFor(beginning)
	s.play(p)
	s.heal()
	s.runFor(mended)
	s.probe()
	s.silence()
	for _, h := range s.hosts {
		h.kill()
	}
	ports := map[uint64]uint16{}
	for _, t := range s.judge.talks {
		ports[t.n] = t.sport
	}
	return Result{p.Seed, s.failures, s.trace, s.steps, s.judge.counts.sent, s.judge.counts.delivered, ports}
}

func newSim(seed uint64, dir string, log func(string)) *Sim {
	s := &Sim{seed: seed, rnd: rand.New(rand.NewPCG(seed, 3)), clock: &clock.Manual{}, Log: log, dir: dir}
	s.clock.Advance(time.Second) // 0 means never to some
	s.store = &server{s: s, graph: model.NewGraph(), parts: mem.NewParts(), shared: map[string]*entry{}}
	s.judge = judge{s: s, packets: map[uint64]*sentPacket{}}
	s.oracle = oracle{s: s, samples: map[sampleKey]sample{}}
	s.links = links{cut: map[[2]*host]bool{}, last: map[[2]*host]int64{}}
	return s
}

// build makes the network, its hosts and its VMs.
func (s *Sim) build(n *network, settings *conf.Settings) {
	if _, err := s.store.txn(n.ops...); err != nil {
		panic(err)
	}
	for _, name := range n.hosts {
		h := s.store.graph.Get(model.KindHost, id(name)).(*model.Host)
		s.newHost(name, match.AddrFrom(h.Tunnels[0].Address), settings)
	}
	for _, p := range n.vms {
		s.newVM(p).place(s.host(p.host))
	}
	for _, h := range s.hosts {
		h.start()
	}
	var beat func()
	beat = func() { s.store.keepAlive(); s.after(time.Second, beat) }
	beat()
}

func (s *Sim) host(name string) *host {
	i := slices.IndexFunc(s.hosts, func(h *host) bool { return h.name == name })
	if i < 0 {
		return nil
	}
	return s.hosts[i]
}

func (s *Sim) hostOf(id uuid.UUID) *host {
	i := slices.IndexFunc(s.hosts, func(h *host) bool { return h.id == id })
	return s.hosts[i]
}

// play does the plan's steps.
func (s *Sim) play(p *Plan) {
	begin := s.now()
	for _, step := range p.Steps {
		s.runFor(time.Duration(begin + int64(step.At) - s.now()))
		step.do(s, rand.New(rand.NewPCG(p.Seed^step.Seed<<32, 4)))
	}
	s.runFor(time.Duration(begin + int64(trouble) - s.now()))
}

// heal ends all that is wrong.
func (s *Sim) heal() {
	s.logf("all is mended")
	s.quiet = true
	for way := range s.links.cut {
		delete(s.links.cut, way)
	}
	s.links.loss, s.links.reorder = 0, false
	s.storeDown(false)
	for _, h := range s.hosts {
		h.slow = 0
		if h.agent == nil {
			h.start()
		}
		h.client.slow, h.client.unsure, h.client.crooked = 0, false, false
		h.client.hearAgain()
		if h.client.away {
			h.client.cut(false)
		}
	}
	for _, v := range s.vms {
		s.settle(v)
	}
}

// maxProbes bounds how many pairs of VMs are tried.
const maxProbes = 24

// probe has VMs begin to talk, and sees what becomes of it.
func (s *Sim) probe() {
	from := len(s.judge.talks)
	r := rand.New(rand.NewPCG(s.seed, 5))
	for range maxProbes {
		t := s.randomTalk(r)
		t.left, t.every = 2, 5*time.Second
		s.after(between(r, 0, 2*time.Second), func() { s.begin(t) })
	}
	s.runFor(probing)
	if len(s.failures) == 0 {
		s.checkProbes(from)
		s.checkQuiet()
	}
}

// silence lets so much time pass that nothing is remembered.
func (s *Sim) silence() {
	if len(s.failures) > 0 {
		return
	}
	s.logf("silence")
	for _, v := range s.vms {
		v.silent = true
	}
	s.runFor(10 * time.Second)
	for _, h := range s.hosts {
		h.idle = 20 * time.Second
	}
	s.runFor(silence)
	s.checkSilence()
}

// randomTalk begins a talk.
func randomTalk(s *Sim, r *rand.Rand) { s.begin(s.randomTalk(r)) }

func (s *Sim) randomTalk(r *rand.Rand) *talk {
	t := &talk{from: pick(r, s.vms), proto: pick(r, []uint8{packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP}),
		sport: uint16(1024 + r.IntN(60000)), dport: pick(r, servers), left: 1 + r.IntN(8), every: between(r, time.Millisecond, 4*time.Second), fin: chance(r, 2)}
	t.to = pick(r, s.vms).addr
	if fips := s.store.graph.List(model.KindFloatingIP); len(fips) > 0 && chance(r, 4) {
		t.to = match.AddrFrom(pick(r, fips).(*model.FloatingIP).Address)
	}
	if t.to == t.from.addr {
		t.to = match.AddrFrom(pick(r, s.vms).prefix.Addr()) // perhaps itself still: then nobody hears it
	}
	return t
}
