package worker

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/xlate"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

const oneSubnet = `
bridge blue
vm a blue 02:00:00:00:00:0a 10.0.1.10
vm b blue 02:00:00:00:00:0b 10.0.1.11
vm world blue 02:00:00:00:00:0f 10.0.1.99
`

// set changes what the worker knows of ports.
func (r *rig) set(p *xlate.Ports, changed ...uuid.UUID) {
	r.ports = p
	var tags []tag.Tag
	for _, id := range changed {
		tags = append(tags, tag.Tag{Kind: tag.Binding, ID: id})
	}
	r.w.Do(func() {
		r.w.SetPorts(p)
		r.w.Invalidate(tags)
	})
	r.turn()
}

// newWaiting is a pair whose second host expects a port, which it has had under a number, and has a packet wait for it.
func newWaiting(t *testing.T) (p *pair, world uuid.UUID, no, key uint32) {
	t.Helper()
	p = newPair(t, oneSubnet)
	r := p.h2
	world = pathtest.ID("world")
	no, _ = r.ports.Local(world)
	key = r.topo.Ports[world].TunnelKey
	r.set(r.ports.Without(world).WithExpected(world, key), world)
	if err := r.dp.SetTunnelKey(key, r.ports.Tunnel()); err != nil {
		t.Fatal(err)
	}
	p.h1.in("a udp eth=a>world ip=10.0.1.10>10.0.1.99 ports=1>2")
	p.turn()
	if n := r.w.Counts().Waiting; n != 1 {
		t.Fatalf("%d wait: %+v", n, r.w.Counts())
	}
	return p, world, no, key
}

// What comes out of a tunnel for a port that is to be this host's soon waits for it, in order, and does not when it was never expected or is not
// any more.
func TestPortThatComes(t *testing.T) {
	p := newPair(t, oneSubnet)
	r, world := p.h2, pathtest.ID("world")
	no, _ := r.ports.Local(world)
	key := r.topo.Ports[world].TunnelKey
	lead := func(to uint32) {
		t.Helper()
		if err := r.dp.SetTunnelKey(key, to); err != nil {
			t.Fatal(err)
		}
	}
	send := func(ports ...string) {
		t.Helper()
		for _, x := range ports {
			p.h1.in("a udp eth=a>world ip=10.0.1.10>10.0.1.99 ports=" + x)
			p.h1.turn()
		}
		p.turn()
	}
	away := r.ports.Without(world)
	lead(r.ports.Tunnel())
	r.set(away, world)
	send("1>2")
	if n := r.w.Counts().Dropped[drop.NotBound]; n != 1 || r.w.Counts().Waiting != 0 {
		t.Fatalf("not expected: %+v", r.w.Counts())
	}

	r.set(away.WithExpected(world, key), world)
	send("1>2", "1>2", "3>4")
	if n := r.w.Counts().Waiting; n != 3 || len(r.sent) != 0 {
		t.Fatalf("%d wait, %d are sent: %+v", n, len(r.sent), r.w.Counts())
	}
	r.set(r.ports.With(world, no), world) // bound, and its interface down
	if n := r.w.Counts().Waiting; n != 3 || len(r.sent) != 0 {
		t.Fatalf("%d wait, %d are sent: %+v", n, len(r.sent), r.w.Counts())
	}
	r.set(r.ports.WithoutExpected(world), world)
	lead(no)
	send("5>6")
	r.expect("ports 1 > 2", "ports 1 > 2", "ports 3 > 4", "ports 5 > 6")

	r.set(away.WithExpected(world, key), world)
	lead(r.ports.Tunnel())
	send("1>2")
	r.set(r.ports.Forget(world), world) // it does not come
	if n := r.w.Counts().Dropped[drop.NotBound]; n != 2 || r.w.Counts().Waiting != 0 {
		t.Errorf("given up: %+v", r.w.Counts())
	}
}

// What a worker is told has its effect in that very turn: it does not wait for a miss first, with what it has to say to another host, or with
// packets that may go on.
func TestToldWhileIdle(t *testing.T) {
	p, world, no, _ := newWaiting(t)
	r := p.h2
	told := func(what string, f func()) {
		t.Helper()
		r.dp.Wake(0) // as Do does; it is used up when the worker comes to what it is told
		if err := r.w.Turn(time.Hour); err != nil {
			t.Fatal(err)
		}
		r.w.inbox.put(f)
		over := make(chan error, 1)
		go func() { over <- r.w.Turn(time.Hour) }()
		select {
		case err := <-over:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it waits for a miss", what)
			r.dp.Wake(0)
			<-over
		}
	}
	told("a port is there", func() {
		r.w.SetPorts(r.ports.With(world, no).WithoutExpected(world))
		r.w.Invalidate([]tag.Tag{{Kind: tag.Binding, ID: world}})
	})
	r.expect("ports 1 > 2")
	conn := replicate.Conn{Conn: conntrack.Conn{Kind: tag.Connection, Device: world, Idle: time.Minute}}
	before := p.told
	told("a host is to know", func() { r.w.Tell(r.topo.Snapshot.Hosts[hostIDs[0]].Tunnel, []replicate.Conn{conn}, nil) })
	if p.told != before+1 {
		t.Errorf("%d messages, want 1", p.told-before)
	}
	p.turn()
}

// At the host that a port leaves, what comes for it waits until it is known where it goes, and follows it.
func TestPortThatGoes(t *testing.T) {
	p, world, _, key := newWaiting(t)
	r := p.h2
	// It goes to the first host, where it is expected no more.
	no, err := p.h1.dp.AddPort(p.h1.topo.Ports[world].Interface, datapath.VM)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.h1.dp.SetTunnelKey(key, no.No); err != nil {
		t.Fatal(err)
	}
	moved := *r.topo.Ports[world]
	moved.Host = hostIDs[0]
	r.topo.Ports[world] = &moved
	r.set(r.ports.WithoutExpected(world), world)
	p.turn()
	p.h1.expect("ports 1 > 2")
	p.h1.in("a udp eth=a>world ip=10.0.1.10>10.0.1.99 ports=3>4") // the sender has not heard yet
	p.turn()
	p.h1.expect("ports 3 > 4")
	r.set(r.ports.Forget(world), world)
	p.h1.in("a udp eth=a>world ip=10.0.1.10>10.0.1.99 ports=5>6")
	p.turn()
	if n := r.w.Counts().Dropped[drop.NotBound]; n != 1 {
		t.Errorf("long after: %+v", r.w.Counts())
	}
}

// So does what a VM of this host sends to such a port; no flow drops it meanwhile.
func TestPortThatComesFromHere(t *testing.T) {
	r := newRig(t, oneSubnet, Config{})
	b := pathtest.ID("b")
	no, _ := r.ports.Local(b)
	away := r.ports.Without(b)
	const sent = "a udp eth=a>b ip=10.0.1.10>10.0.1.11 ports=1>2"
	r.set(away.WithExpected(b, 7), b)
	r.in(sent, sent)
	r.turn()
	if n := r.w.Counts().Waiting; n != 2 || r.flows() != 0 {
		t.Fatalf("%d wait, %d flows: %+v", n, r.flows(), r.w.Counts())
	}
	r.set(r.ports.With(b, no), b)
	if n := r.w.Counts().Waiting; n != 2 {
		t.Fatalf("%d wait, although the interface is down", n)
	}
	r.set(r.ports.WithoutExpected(b), b)
	r.expect("ports 1 > 2", "ports 1 > 2")

	r.set(away.WithExpected(b, 7), b)
	r.in(sent)
	r.turn()
	r.advance(6 * time.Second)
	r.turn()
	if n := r.w.Counts().Dropped[drop.ParkTimeout]; n != 1 {
		t.Errorf("%d dropped by time: %+v", n, r.w.Counts())
	}
	r.set(away, b)
	r.in(sent)
	r.turn()
	if n := r.w.Counts().Dropped[drop.Inactive]; n != 1 || r.flows() != 1 {
		t.Errorf("not expected: %d dropped, %d flows: %+v", n, r.flows(), r.w.Counts())
	}
}
