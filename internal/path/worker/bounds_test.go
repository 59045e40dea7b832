package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/state"
)

// crowd is a bridge with a VM that floods, one that does not, and one to talk to; behind a router nobody is at home.
const crowd = `
bridge net
bridge far
router r
vm rogue net 02:00:00:00:00:0a 10.0.1.5
vm good net 02:00:00:00:00:0b 10.0.1.6
vm open net 02:00:00:00:00:0c 10.0.1.7
vm loose net
vm other net
vm quiet far
link net r=10.0.1.1/24
link far r=10.0.2.1/24
secure open
groups open open
allow open in
allow open out
`

// TestBoundsAreEachPortsOwn: whatever one port floods, it is stopped at its own bound by a drop with a name, and another port does
// the same as if nothing were.
func TestBoundsAreEachPortsOwn(t *testing.T) {
	const flood, bound = 20, 4
	for _, c := range []struct {
		name    string
		rogue   func(i int) string
		good    string
		why     drop.Reason
		dropped int
		want    string // that good's packet brings about
	}{
		{"MAC addresses", func(i int) string {
			return fmt.Sprintf("loose udp eth=02:01:00:00:00:%02x>open ip=10.0.1.9>10.0.1.7 ports=1>2", i)
		}, "other udp eth=02:02:00:00:00:01>open ip=10.0.1.8>10.0.1.7 ports=1>2", drop.TooManyMACs, flood - bound, "open < 02:02:00:00:00:01"},
		{"announcements", func(i int) string {
			return fmt.Sprintf("rogue arp op=reply eth=rogue>broadcast ip=10.0.1.%d>10.0.1.%d", 100+i, 100+i)
		}, "good arp op=reply eth=good>broadcast ip=10.0.1.99>10.0.1.99", drop.TooManyNeighs, flood - bound/2, "arp 10.0.1.99 is at 02:00:00:00:00:0b"},
		{"pending neighbours", func(i int) string {
			return fmt.Sprintf("rogue udp eth=rogue>r:net ip=10.0.1.5>10.0.2.%d ports=1>2", 100+i)
		}, "good udp eth=good>r:net ip=10.0.1.6>10.0.2.99 ports=1>2", drop.TooManyWaits, flood - bound, "quiet < ac"},
		{"connections", func(i int) string {
			return fmt.Sprintf("rogue tcp eth=rogue>open ip=10.0.1.5>10.0.1.7 ports=%d>80", 1000+i)
		}, "good tcp eth=good>open ip=10.0.1.6>10.0.1.7 ports=1>80", drop.TooManyConns, flood - bound, "open < 02:00:00:00:00:0b"},
		{"echo identifiers", func(i int) string {
			return fmt.Sprintf("rogue echo eth=rogue>open ip=10.0.1.5>10.0.1.7 id=%d", i)
		}, "good echo eth=good>open ip=10.0.1.6>10.0.1.7 id=1", drop.TooManyConns, flood - bound, "open < 02:00:00:00:00:0b"},
		{"generated replies", func(i int) string {
			return fmt.Sprintf("rogue echo eth=rogue>r:net ip=10.0.1.5>10.0.1.1 id=%d", i)
		}, "good echo eth=good>r:net ip=10.0.1.6>10.0.1.1 id=1", drop.ReplyOverflow, flood - bound, "good < ac"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRigWith(t, crowd, Config{Replies: Replies{PerSecond: 1, Burst: bound}}, func(s *state.Config) {
				s.MAC.MaxPerPort, s.ARP.MaxPerPort, s.ARP.MaxPending, s.Conntrack.MaxPerOwner = bound, bound, bound, bound
			})
			for i := range flood {
				r.in(c.rogue(i))
				r.turn()
			}
			if n := r.w.Counts().Dropped[c.why]; n != uint64(c.dropped) {
				t.Errorf("%d packets dropped as %s, want %d: %v", n, c.why, c.dropped, r.w.Counts().Dropped)
			}
			r.got()
			r.in(c.good)
			r.turn()
			found := false
			for _, line := range r.got() {
				found = found || strings.Contains(line, c.want)
			}
			if !found || r.w.Counts().Dropped[c.why] != uint64(c.dropped) {
				t.Errorf("the other port's packet was dropped, or brought about nothing with %q: %v", c.want, r.w.Counts().Dropped)
			}
		})
	}
}

// TestRepliesComeBackWithTime: the allowance is a rate.
func TestRepliesComeBackWithTime(t *testing.T) {
	r := newRig(t, crowd, Config{Replies: Replies{PerSecond: 10, Burst: 2}})
	ping := func() int {
		r.in("rogue echo eth=rogue>r:net ip=10.0.1.5>10.0.1.1 id=1")
		r.turn()
		return len(r.got())
	}
	got := []int{ping(), ping(), ping()}
	r.clk.Advance(100 * time.Millisecond)
	got = append(got, ping(), ping())
	r.clk.Advance(time.Hour)
	got = append(got, ping(), ping(), ping())
	if want := fmt.Sprint([]int{1, 1, 0, 1, 0, 1, 1, 0}); fmt.Sprint(got) != want {
		t.Errorf("answered %v, want %s", got, want)
	}
}
