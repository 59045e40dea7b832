package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/nat"
)

func connection(n uint16, kind tag.Kind) conntrack.Conn {
	orig := match.Tuple{Src: addr("10.0.0.5"), Dst: addr("203.0.113.9"), SrcPort: n, DstPort: 80, Proto: 6}
	reply := orig.Reverse()
	if kind == tag.Translation {
		reply.Dst, reply.DstPort = addr("203.0.113.1"), 1024+n
	}
	return conntrack.Conn{Kind: kind, Device: ids(2), Orig: orig, Reply: reply, Owner: ids(6)}
}

func keeper(dir string) *Agent {
	l := logs.Discard()
	return &Agent{cfg: Config{RunDir: dir}, log: l.For(""), tables: state.New(state.DefaultConfig(), new(clock.Manual))}
}

func TestSilentConnectionsSurvive(t *testing.T) {
	dir := t.TempDir()
	a := keeper(dir)
	held := tag.Of(tag.Connection, ids(2), &match.Tuple{})
	for n := uint16(1); n <= 100; n++ {
		kind := tag.Connection
		if n%2 == 0 {
			kind = tag.Translation
		}
		c := connection(n, kind)
		if v := a.tables.AddConnection(c); v != conntrack.Added {
			t.Fatal(v)
		}
		orig := tag.Of(kind, c.Device, &c.Orig)
		if n <= 50 {
			a.tables.ConnectionReplied(orig)
		}
		if n == 100 {
			held = orig
			a.tables.Hold(&held) // it has a flow, which the next agent finds
		}
	}
	if err := a.writeConnections(); err != nil {
		t.Fatal(err)
	}
	// Its flow would not tell that this one went to the higher port.
	up := connection(7, tag.Connection)
	up.Orig.DstPort, up.Reply.SrcPort = 8080, 8080
	a.tables.AddConnection(up)
	orig := tag.Of(up.Kind, up.Device, &up.Orig)
	a.tables.Hold(&orig)
	if err := a.writeConnections(); err != nil {
		t.Fatal(err)
	}
	b := keeper(dir)
	if n, err := b.readConnections(); n != 100 || err != nil {
		t.Fatalf("%d restored, %v", n, err)
	}
	for n := uint16(1); n < 100; n++ {
		kind := tag.Connection
		if n%2 == 0 {
			kind = tag.Translation
		}
		want := connection(n, kind)
		got, s, ok := b.tables.GetConnection(tag.Of(kind, want.Device, &want.Orig))
		if !ok || got != want || (s&conntrack.Replied != 0) != (n <= 50) {
			t.Fatalf("%d: %+v, state %d, %v; want %+v", n, got, s, ok, want)
		}
	}
	if b.tables.HasConnection(held) {
		t.Error("what a flow holds is in the file too")
	}
}

// A file that is cut off, or changed, restores nothing: half of a truth is none.
func TestDamagedConnections(t *testing.T) {
	dir := t.TempDir()
	a := keeper(dir)
	a.tables.AddConnection(connection(1, tag.Connection))
	if err := a.writeConnections(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, connectionsFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), whole...)
	flipped[len(keepMagic)+20] ^= 1
	for _, b := range [][]byte{nil, whole[:len(whole)-1], whole[:10], flipped, append(whole, 0)} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := keeper(dir).readConnections(); n != 0 || err == nil {
			t.Errorf("%d bytes: %d restored, %v", len(b), n, err)
		}
	}
	keeper(dir).restoreConnections()
	if _, err := os.Stat(path + ".bad"); err != nil {
		t.Errorf("what is damaged is not set aside: %v", err)
	}
	keeper(t.TempDir()).restoreConnections() // none: nothing to be said
}

// leases is a nat.Leaser that gives what it is asked for, and writes down what that is.
type leases struct{ has map[uint16]bool }

func (l *leases) Lease(_ nat.Pool, _, _, want uint16, done func(uint16, bool)) {
	first := want &^ (nat.BlockSize - 1)
	l.has[first] = true
	done(first, true)
}

func (l *leases) Release(_ nat.Pool, first uint16) { delete(l.has, first) }

// TestBlocksOfSilentConnections: the next agent leases the ports of a translated connection that has no flow, before anybody else
// is translated to them, and keeps them as long as the connection lives.
func TestBlocksOfSilentConnections(t *testing.T) {
	dir := t.TempDir()
	a := keeper(dir)
	c := connection(2, tag.Translation)
	if v := a.tables.AddConnection(c); v != conntrack.Added {
		t.Fatal(v)
	}
	a.tables.ConnectionReplied(tag.Of(c.Kind, c.Device, &c.Orig))
	if err := a.writeConnections(); err != nil {
		t.Fatal(err)
	}
	l, clk, cfg := &leases{map[uint16]bool{}}, new(clock.Manual), state.DefaultConfig()
	cfg.Leaser = l
	b := keeper(dir)
	b.tables = state.New(cfg, clk)
	if n, err := b.readConnections(); n != 1 || err != nil {
		t.Fatalf("%d restored, %v", n, err)
	}
	first := c.Reply.DstPort &^ (nat.BlockSize - 1)
	if !l.has[first] || len(l.has) != 1 {
		t.Fatalf("leased: %v", l.has)
	}
	for range 120 { // two hours: longer than idle blocks are kept
		clk.Advance(time.Minute)
		b.tables.Tick()
	}
	if !l.has[first] || !b.tables.HasConnection(tag.Of(c.Kind, c.Device, &c.Orig)) {
		t.Errorf("given back while the connection lives: %v", l.has)
	}
	for range 30 {
		clk.Advance(time.Minute)
		b.tables.Tick()
	}
	if len(l.has) != 0 {
		t.Errorf("not given back: %v", l.has)
	}
}
