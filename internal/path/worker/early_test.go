package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath/fake"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

// served has the world answer, and begin nothing itself.
const served = `
bridge net
vm a net 02:00:00:00:00:0a 10.0.1.10
vm world net 02:00:00:00:00:0b 10.0.1.11
secure a
secure world
groups a clients
groups world servers
allow clients out
allow servers in
`

// losing has the first n messages about connections lost.
func (p *pair) losing(n int) {
	p.lose = func(s fake.Sent) bool {
		h, _, err := replicate.Parse(s.Frame)
		n--
		return s.Key == replicate.Key && err == nil && h.Kind == replicate.Conns && n >= 0
	}
}

func (p *pair) advance(d time.Duration) {
	p.h1.clk.Advance(d)
	p.h2.clk.Advance(d)
	p.turn()
}

// An answer that is faster than the news of its connection waits for that, whatever it would have been dropped for.
func TestEarlyAnswer(t *testing.T) {
	const udp, tcp = " udp eth=a>%s ip=10.0.1.10>%s ports=4000>53", " tcp eth=a>%s ip=10.0.1.10>%s ports=4000>80 flags=S"
	for _, c := range []struct {
		name, network, request string
		flags                  uint8
		without                drop.Reason
	}{
		{"tcp of a secured port", served, "a" + tcp, packet.FlagSYN | packet.FlagACK, drop.ConnInvalid},
		{"data of a secured port", served, "a" + tcp, packet.FlagACK, drop.GroupDrop},
		{"udp of a secured port", served, "a" + udp, 0, drop.GroupDrop},
		{"tcp to who is translated", gateway, "a" + tcp, packet.FlagSYN | packet.FlagACK, drop.LocalNotTaken},
		{"udp to who is translated", gateway, "a" + udp, 0, drop.LocalNotTaken},
	} {
		request := strings.NewReplacer("eth=a>%s", "eth=a>world", ">%s", ">10.0.1.11").Replace(c.request)
		if c.network == gateway {
			request = strings.NewReplacer("eth=a>%s", "eth=a>r:in", ">%s", ">203.0.113.9").Replace(c.request)
		}
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, c.network)
			p.losing(1)
			p.h1.in(request)
			p.turn()
			p.reply(c.flags)
			if n := p.h2.w.Counts().Waiting; n != 1 {
				t.Fatalf("%d wait; dropped %v", n, p.h2.w.Counts().Dropped)
			}
			p.advance(time.Duration(resendAfter))
			p.h1.expect("a < ")
			if c := p.h2.w.Counts(); c.Waiting != 0 || c.Dropped != [drop.NumReasons]uint64{} || len(p.h2.sent) != 0 {
				t.Errorf("%d wait, dropped %v, sent %v", c.Waiting, c.Dropped, p.h2.got())
			}
		})
		t.Run(c.name+", in vain", func(t *testing.T) {
			p := newPair(t, c.network)
			p.losing(100)
			p.h1.in(request)
			p.turn()
			p.reply(c.flags)
			p.advance(time.Duration(earlyWait) - 1)
			if n := p.h2.w.Counts().Waiting; n != 1 {
				t.Fatalf("%d wait", n)
			}
			p.advance(1)
			if x := p.h2.w.Counts(); x.Waiting != 0 || x.Dropped[c.without] != 1 {
				t.Errorf("%d wait, dropped %v", x.Waiting, x.Dropped)
			}
		})
	}
}

// What begins a connection is no answer, and one port's answers to nobody leave room for those of others; all that wait end with their port.
func TestFewAreEarly(t *testing.T) {
	p := newPair(t, served)
	p.h2.in("world tcp eth=world>a ip=10.0.1.11>10.0.1.10 ports=80>4000 flags=S")
	p.turn()
	if c := p.h2.w.Counts(); c.Waiting != 0 || c.Dropped[drop.GroupDrop] != 1 {
		t.Errorf("%d wait, dropped %v", c.Waiting, c.Dropped)
	}
	for i := range 2 * earlyShare {
		p.h2.in(fmt.Sprintf("world tcp eth=world>a ip=10.0.1.11>10.0.1.10 ports=80>%d flags=SA", 5000+i))
		p.turn()
	}
	if c := p.h2.w.Counts(); c.Waiting != earlyShare || c.Dropped[drop.ConnInvalid] != earlyShare {
		t.Errorf("%d wait, dropped %v", c.Waiting, c.Dropped)
	}
	no, _ := p.h2.ports.Local(pathtest.ID("world"))
	p.h2.w.Do(func() { p.h2.w.forgetEarly(no) })
	p.turn()
	if c := p.h2.w.Counts(); c.Waiting != 0 || c.Dropped[drop.NotBound] != earlyShare {
		t.Errorf("%d wait, dropped %v", c.Waiting, c.Dropped)
	}
}
