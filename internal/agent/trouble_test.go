package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	agentdebug "github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/offheap"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/topo/store/disk"
)

// TestTroubles: a trouble is told once when it begins and once when it ends, and can be seen meanwhile.
func TestTroubles(t *testing.T) {
	var log bytes.Buffer
	x := newTroubles(slog.New(slog.NewTextHandler(&log, nil)), newEvents())
	full := cure("/var/lib/x", &os.PathError{Op: "write", Path: "/var/lib/x/f", Err: unix.ENOSPC})
	for range 3 {
		x.set(troubleTopology, "it is not kept", full)
	}
	if s := x.texts(); len(s) != 1 || !strings.Contains(s[0], "no space left") || !strings.Contains(s[0], "df -h /var/lib/x") {
		t.Errorf("%q", s)
	}
	if s := log.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "df -h /var/lib/x") {
		t.Errorf("logged: %s", s)
	}
	for range 2 {
		x.set(troubleTopology, "it is not kept", nil)
	}
	if s := log.String(); len(x.texts()) != 0 || strings.Count(s, "\n") != 2 || !strings.Contains(s, "over") {
		t.Errorf("logged: %s", s)
	}
	x.set(troubleTopology, "it is not kept", errors.New("again"))
	if n := x.begun(troubleTopology); n != 2 {
		t.Errorf("it has begun %d times, want 2", n)
	}
	if list, _, _ := x.events.since(0); len(list) != 3 || list[0].Kind != agentdebug.EventTrouble || list[1].Kind != agentdebug.EventMended {
		t.Errorf("%+v", list)
	}
}

// TestNowhereToWrite: an agent that cannot write what it keeps serves, says so everywhere, and writes when it can.
func TestNowhereToWrite(t *testing.T) {
	l := newLife(t, silent()...)
	state := filepath.Join(l.dir, "state")
	if err := os.WriteFile(state, nil, 0o600); err != nil { // where the directory should be
		t.Fatal(err)
	}
	l.begin(false)
	l.serves()
	trouble := func() string {
		s, err := l.client.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(s.Troubles, "\n")
	}
	l.await("the trouble is known", func() bool { return strings.Contains(trouble(), troubleTopology) })
	if s := trouble(); !strings.Contains(s, "ls -ld "+state) {
		t.Errorf("no advice: %s", s)
	}
	if err := l.client.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
	m, err := l.client.Metrics(t.Context())
	if err != nil || !strings.Contains(m, `viaduct_agent_trouble{trouble="topology_not_kept"} 1`) || !strings.Contains(m, `viaduct_agent_trouble{trouble="datapath_damaged"} 0`) {
		t.Errorf("%v in\n%s", err, m)
	}
	l.answered("10.0.0.1")
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	l.await("it is over", func() bool { return trouble() == "" })
	if _, err := disk.Read(state, "h1"); err != nil {
		t.Error(err)
	}
	l.stop()
}

// mender is a datapath's Mend.
type mender struct {
	mended []string
	err    error
}

func (m *mender) Mend() ([]string, error) { return m.mended, m.err }

func TestMendIsTold(t *testing.T) {
	var log bytes.Buffer
	a := &Agent{events: newEvents(), log: slog.New(slog.NewTextHandler(&log, nil))}
	a.troubles = newTroubles(a.log, a.events)
	m := &mender{mended: []string{"the pin of map flows", "the ingress program of tap0"}}
	a.mendOnce(m)
	if a.mended.Load() != 2 || strings.Count(log.String(), "put back") != 2 || len(a.troubles.texts()) != 0 {
		t.Errorf("%d mended; %s", a.mended.Load(), log.String())
	}
	*m = mender{err: datapath.ErrBusy}
	a.mendOnce(m)
	a.mendOnce(m)
	if s := a.troubles.texts(); len(s) != 1 || !strings.HasPrefix(s[0], troubleDatapath) || strings.Count(log.String(), "\n") != 3 {
		t.Errorf("%q; %s", s, log.String())
	}
	*m = mender{err: datapath.ErrClosed}
	a.mendOnce(m)
	if len(a.troubles.texts()) != 1 {
		t.Error("a datapath that is closed has no more news")
	}
}

// TestGroupLimit reads the limits of both versions of control groups: the least on the way to the root counts.
func TestGroupLimit(t *testing.T) {
	for _, c := range []struct {
		name, membership string
		files            map[string]string
		want             int64 // 0: none
	}{
		{"version 2", "0::/system.slice/viaduct-agent.service\n",
			map[string]string{"system.slice/viaduct-agent.service/memory.max": "max\n", "system.slice/memory.max": "1073741824\n"}, 1 << 30},
		{"version 2, none", "0::/a\n", map[string]string{"a/memory.max": "max\n"}, 0},
		{"version 1", "9:cpu,memory:/viaduct\n1:name=systemd:/x\n0::/x\n",
			map[string]string{"memory/viaduct/memory.limit_in_bytes": "536870912\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}, 512 << 20},
		{"version 1, none", "9:memory:/\n", map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		{"no control groups", "", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			files := map[string]string{"membership": c.membership}
			maps.Copy(files, c.files)
			for name, text := range files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if n, ok := groupLimit(filepath.Join(dir, "membership"), dir); ok != (c.want != 0) || ok && n != c.want {
				t.Errorf("%d, %v; want %d", n, ok, c.want)
			}
		})
	}
}

// TestMemoryShort: what the collector cannot keep within the limit is a trouble; the variable that Go has for it stands.
func TestMemoryShort(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	a := &Agent{events: newEvents(), log: slog.New(slog.DiscardHandler)}
	a.troubles = newTroubles(a.log, a.events)
	t.Setenv("GOMEMLIMIT", "")
	a.limitMemory(1) // MiB: less than any process has
	if n := debug.SetMemoryLimit(-1); n > 1<<20 || a.memoryLimit() != 1<<20 {
		t.Errorf("the limit is %d, the collector's %d", a.memoryLimit(), n)
	}
	if a.checkMemory(); len(a.troubles.texts()) != 1 || !strings.Contains(a.troubles.texts()[0], "agent.memory.limit") {
		t.Errorf("%q", a.troubles.texts())
	}
	a.limitMemory(1 << 10)
	var m offheap.Memory
	s := offheap.Make[byte](&m, 64<<20)
	if a.checkMemory(); !offheap.OnHeap && debug.SetMemoryLimit(-1) > 960<<20 {
		t.Errorf("the collector's limit is %d, of 1 GiB with a table of 64 MiB", debug.SetMemoryLimit(-1))
	}
	offheap.Free(&m, s)
	t.Setenv("GOMEMLIMIT", "off")
	debug.SetMemoryLimit(1 << 20)
	a.limitMemory(2)
	if n := debug.SetMemoryLimit(-1); n != 1<<20 {
		t.Errorf("the limit is %d although the variable is set", n)
	}
	debug.SetMemoryLimit(math.MaxInt64)
	if a.checkMemory(); len(a.troubles.texts()) != 0 {
		t.Errorf("%q", a.troubles.texts())
	}
}

// TestTablesInHeap: maps that the kernel refuses are told of once, with what it means and what to do.
func TestTablesInHeap(t *testing.T) {
	var log bytes.Buffer
	a := &Agent{events: newEvents(), log: slog.New(slog.NewTextHandler(&log, nil))}
	a.troubles = newTroubles(a.log, a.events)
	if a.checkTables(0); len(a.troubles.texts()) != 0 || log.Len() != 0 {
		t.Errorf("nothing was refused: %q; %s", a.troubles.texts(), log.String())
	}
	a.checkTables(1)
	a.checkTables(3)
	if s := a.troubles.texts(); len(s) != 1 || !strings.HasPrefix(s[0], troubleTables+": ") || !strings.Contains(s[0], "3 times") {
		t.Errorf("%q", s)
	}
	for _, want := range []string{"level=WARN", "garbage collector", "1 times", "vm.max_map_count", "LimitAS"} {
		if strings.Count(log.String(), want) != 1 {
			t.Errorf("no, or not one, %q: %s", want, log.String())
		}
	}
}
