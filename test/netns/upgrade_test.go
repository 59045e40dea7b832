package netns

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// An agent is replaced by one whose maps are laid out differently, and that one by the first again, while a VM sends to one behind a router
// on the same host and to one on another host. No packet of either flow may be lost, whether the next agent can
// convert the maps or has to simulate the flows anew; the tunnel device stays what it is.
func TestUpgrade(t *testing.T) {
	if len(driver()) > 0 {
		t.Skip("a driver that pins no maps")
	}
	other := filepath.Join(t.TempDir(), "viaduct")
	if out, err := exec.Command("go", "build", "-tags", "otherlayout", "-o", other, "../../cmd/viaduct").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l := up(t, examples.TwoHosts)
	h := &l.Hosts[0]
	device := tunnelIndex(t, h)
	// The first frame makes the flow; what counts comes after it.
	type flow struct {
		to     string
		before uint64
		run    interface{ Wait(any) error }
	}
	flows := map[string]*flow{"10.0.2.10": {to: "carol"}, "10.0.1.11": {to: "bob"}}
	for address, f := range flows {
		args := func(count int) []string {
			return []string{"flood", "--mode=destinations", "--target=" + address + "/32", "--rate=2000", "--count=" + strconv.Itoa(count), "--duration=30s"}
		}
		before := receivedBy(t, space(t, l, f.to))
		if err := tools().Run(t.Context(), space(t, l, "alice"), nil, args(1)...); err != nil {
			t.Fatal(err)
		}
		awaitReceived(t, space(t, l, f.to), before+1)
		f.before = receivedBy(t, space(t, l, f.to))
		run, err := tools().Start(t.Context(), space(t, l, "alice"), args(12000)...)
		if err != nil {
			t.Fatal(err)
		}
		f.run = run
	}
	for i, next := range []struct {
		binary  string
		unknown bool   // the layout that it finds
		says    string // in its log
	}{
		{other, false, "maps of an earlier agent converted"},
		{viaduct, false, "of a layout that is not known here"}, // a downgrade
		{viaduct, false, ""},
		{other, true, "of a layout that is not known here"},
		{viaduct, false, "of a layout that is not known here"},
	} {
		log, err := os.ReadFile(h.Log)
		if err != nil {
			t.Fatal(err)
		}
		noneDropped(t, l, i) // the next agent may not know of them
		kill(t, h)
		if next.unknown {
			setLayout(t, h, 1000)
		}
		l.Binary = next.binary
		if err := l.StartAgent(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		now, err := os.ReadFile(h.Log)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(now[len(log):]), next.says) {
			t.Errorf("it does not say %q", next.says)
		}
		ping(t, space(t, l, "alice"), "10.0.2.11") // new flows
	}
	noneDropped(t, l, 5)
	for address, f := range flows {
		var sent traffic.FloodResult
		if err := f.run.Wait(&sent); err != nil {
			t.Fatal(err)
		}
		awaitReceived(t, space(t, l, f.to), f.before+sent.Sent)
		if sent.Sent < 1000 {
			t.Errorf("%s: only %d frames were sent", address, sent.Sent)
		}
	}
	if now := tunnelIndex(t, h); now != device {
		t.Errorf("the tunnel device was %d, is %d", device, now)
	}
}

// noneDropped looks at the sender's port: what has been lost there, by reason, up to the n-th agent after the first.
func noneDropped(t *testing.T, l *lab.Lab, n int) {
	t.Helper()
	if drops := port(t, l, "alice").Drops; len(drops) > 0 {
		t.Errorf("dropped up to agent %d: %v", n, drops)
	}
}

// setLayout has the host's maps be of another version.
func setLayout(t *testing.T, h *lab.Host, version uint32) {
	t.Helper()
	config := filepath.Join(h.Pins, "config")
	m, err := ebpf.LoadPinnedMap(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	settings := make([]byte, m.ValueSize())
	if err := m.Lookup(uint32(0), settings); err != nil {
		t.Fatal(err)
	}
	was := binary.LittleEndian.Uint32(settings)
	binary.LittleEndian.PutUint32(settings, version)
	if err := m.Put(uint32(0), settings); err != nil {
		t.Fatal(err)
	}
	dir := func(version uint32) string { return filepath.Join(h.Pins, fmt.Sprintf("layout%d", version)) }
	if err := os.Rename(dir(was), dir(version)); err != nil {
		t.Fatal(err)
	}
}

func tunnelIndex(t *testing.T, h *lab.Host) int {
	t.Helper()
	n, err := h.Space.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	d, err := n.LinkByName("viaduct-vxlan")
	if err != nil {
		t.Fatal(err)
	}
	return d.Attrs().Index
}
