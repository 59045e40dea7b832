package netns

import (
	"testing"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
)

// TestOneMissPerConnection: of a connection through security groups the agent sees the first packet and nothing else: the flow of the answers is
// in the kernel before they are.
func TestOneMissPerConnection(t *testing.T) {
	l := up(t, examples.SecurityGroups)
	web, world := space(t, l, "web"), space(t, l, "world")
	echo(t, web, ":80")
	connect := func() {
		t.Helper()
		conn, err := dial(t, world, "10.0.1.10:80", patience)
		if err == nil {
			err = exchange(conn, patience)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	connect() // neighbours know each other now
	begun, answered := admitted(t, l, "world"), admitted(t, l, "web")
	const n, others = 50, 10 // neighbours ask again
	for range n {
		connect()
	}
	begun, answered = admitted(t, l, "world")-begun, admitted(t, l, "web")-answered
	t.Logf("%d connections: %d misses of who began them, %d of who answered", n, begun, answered)
	if begun < n || begun > n+others || answered > others {
		t.Errorf("%d connections: %d misses of who began them, %d of who answered", n, begun, answered)
	}
}

// admitted is how many misses there were at a port.
func admitted(t *testing.T, l *lab.Lab, name string) uint64 {
	t.Helper()
	ps, err := debug.NewClient(l.Hosts[0].Socket()).Ports(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		if p.Name == name {
			return p.Admitted
		}
	}
	t.Fatalf("there is no port %s", name)
	return 0
}
