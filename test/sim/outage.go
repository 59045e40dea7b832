package sim

import (
	"math/rand/v2"
	"os"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// outage is how long the store is away in Outage.
const outage = time.Hour

// Outage runs the network of a seed through an hour without the store. VMs that have talked before go on talking, and begin new connections with
// each other: none of their packets may be lost, neither then nor when the store is back.
func Outage(seed uint64, log func(string)) Result {
	dir, err := os.MkdirTemp("", "viaduct-sim-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s := newSim(seed, dir, log)
	r := rand.New(rand.NewPCG(seed, 2))
	const pairs, every = 8, 90 * time.Second
	n, set := randomNetwork(r), settings(1+r.IntN(2))
	set.Topology.IdleTimeout = every // they talk more often than that
	s.build(n, set)
	for _, h := range s.hosts {
		h.idle = 500 * time.Millisecond
	}
	s.runFor(mended)
	s.quiet = true // all that is asked for from now on has to come
	var known []*talk
	for range pairs {
		t := s.randomTalk(r)
		t.every, t.fin = between(r, time.Second, 50*time.Second), false // connections of UDP are forgotten after a minute
		t.left = int((outage + 2*every) / t.every)
		s.begin(t)
		known = append(known, t)
	}
	s.runFor(every)
	s.storeDown(true)
	for back := s.now() + int64(outage); s.now() < back && len(s.failures) == 0; {
		t := *pick(r, known)
		t.packets, t.sent, t.left, t.every, t.fin = nil, 0, 2, 3*time.Second, t.proto == packet.ProtoTCP
		t.sport = uint16(1024 + r.IntN(60000))
		s.begin(&t)
		s.runFor(every)
	}
	s.storeDown(false)
	s.runFor(every)
	for _, t := range known {
		t.left = 0
	}
	s.runFor(time.Minute)
	if len(s.failures) == 0 {
		s.checkProbes(0)
		s.checkQuiet()
	}
	for _, h := range s.hosts {
		h.kill()
	}
	return Result{Seed: seed, Failures: s.failures, Trace: s.trace, Steps: s.steps, Sent: s.judge.counts.sent, Delivered: s.judge.counts.delivered}
}
