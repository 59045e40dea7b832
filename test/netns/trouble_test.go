package netns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
	"github.com/viaduct-net/viaduct/internal/topo/store/disk"
)

// diskWait covers some turns of what writes to disk.
const diskWait = time.Minute

// troubled waits until the agent has a trouble, or, with "", none. It returns what the agent says of it.
func troubled(t *testing.T, agent *debug.Client, what string) string {
	t.Helper()
	for end := time.Now().Add(diskWait); ; time.Sleep(100 * time.Millisecond) {
		s, err := agent.Stats(t.Context())
		text := strings.Join(s.Troubles, "\n")
		if err == nil && (what == "" && text == "" || what != "" && strings.HasPrefix(text, what+":")) {
			return text
		}
		if time.Now().After(end) {
			t.Fatalf("the agent's troubles are %q, %v; want %q", text, err, what)
		}
	}
}

// TestFullDisk: the disk fills up under the agent, is then mounted read-only, and has a damaged file at the next start. New flows are set up all the
// while, the last whole file stays, each trouble is told once, and is over when there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	h, alice := &l.Hosts[0], space(t, l, "alice")
	agent := debug.NewClient(h.Socket())
	state := filepath.Join(h.RunDir, "state")
	kill(t, h)
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("viaduct-test", state, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(state, unix.MNT_DETACH)
	if err := l.StartAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(state, disk.File)
	eventually(t, "the network is kept on disk", func(context.Context) error { _, err := os.Stat(file); return err })
	first, err := disk.Read(state, h.Name)
	if err != nil {
		t.Fatal(err)
	}

	fill(t, filepath.Join(state, "somebody-elses"))
	change(t, l, "first")
	if s := troubled(t, agent, "topology_not_kept"); !strings.Contains(s, "no space left on device; make room there: df -h "+state) {
		t.Errorf("it says %s", s)
	}
	ping(t, alice, "10.0.2.10")
	if err := agent.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if now, err := disk.Read(state, h.Name); err != nil || now.Revision != first.Revision {
		t.Errorf("the last whole file is gone: %+v, %v", now, err)
	}
	if err := os.Remove(filepath.Join(state, "somebody-elses")); err != nil {
		t.Fatal(err)
	}
	troubled(t, agent, "")
	if now, err := disk.Read(state, h.Name); err != nil || now.Revision <= first.Revision {
		t.Errorf("nothing newer is kept: %v", err)
	}
	b, err := os.ReadFile(h.Log)
	if n := bytes.Count(b, []byte("the network is not kept on disk")); err != nil || n != 1 {
		t.Errorf("told %d times, %v", n, err)
	}

	if err := unix.Mount("", state, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	change(t, l, "second")
	if s := troubled(t, agent, "topology_not_kept"); !strings.Contains(s, "mount its file system writable") {
		t.Errorf("it says %s", s)
	}
	ping(t, alice, "10.0.2.10")
	if err := unix.Mount("", state, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	troubled(t, agent, "")

	kill(t, h)
	if err := os.Truncate(file, 100); err != nil {
		t.Fatal(err)
	}
	if err := l.StartAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	ping(t, alice, "10.0.2.10")
	if b, err := os.ReadFile(h.Log); err != nil || !bytes.Contains(b, []byte("set aside as "+file+".bad")) {
		t.Errorf("the damaged file is not told of, %v", err)
	}
	if _, err := os.Stat(file + ".bad"); err != nil {
		t.Error(err)
	}
}

// fill writes a file until its file system is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// change has something new in the topology.
func change(t *testing.T, l *lab.Lab, name string) {
	t.Helper()
	apply(t, l, fmt.Sprintf("kind: bridge\nname: %s\n", name))
}

// TestOutOfMemory: the kernel kills the agent because its control group has no memory left. What is established goes on, and so does the next agent.
func TestOutOfMemory(t *testing.T) {
	l := twoSubnets(t)
	h, mallory, carol := &l.Hosts[0], space(t, l, "mallory"), space(t, l, "carol")
	sendFlow(t, mallory, 1)
	before := receivedBy(t, carol)
	flow, err := tools().Start(t.Context(), mallory, flowArgs(4*rate, 30*time.Second)...)
	if err != nil {
		t.Fatal(err)
	}
	awaitReceived(t, carol, before+rate/4)
	outOfMemory(t, h)
	if err := l.StartAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	var sent traffic.FloodResult
	if err := flow.Wait(&sent); err != nil {
		t.Fatal(err)
	}
	awaitReceived(t, carol, before+sent.Sent)
	ping(t, space(t, l, "alice"), "10.0.2.10")
}

// group is a memory control group of version 1 or 2.
type group struct{ dir, limit, events string }

func newGroup(t *testing.T) group {
	t.Helper()
	g := group{"/sys/fs/cgroup/memory/viaduct-test", "memory.limit_in_bytes", "memory.oom_control"}
	if _, err := os.Stat(filepath.Dir(g.dir)); err != nil {
		g = group{"/sys/fs/cgroup/viaduct-test", "memory.max", "memory.events"}
		_ = os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0) // it may be on
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, "the control group is empty", func(context.Context) error { return os.Remove(g.dir) })
	})
	return g
}

func (g group) write(t *testing.T, file string, value int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.Itoa(value)), 0); err != nil {
		t.Fatal(err)
	}
}

// killed reports whether the kernel has killed a process of the group for want of memory.
func (g group) killed(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, g.events))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var n int
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n > 0
		}
	}
	return false
}

// outOfMemory puts the agent into a group that has next to no memory, and works it until the kernel kills it.
func outOfMemory(t *testing.T, h *lab.Host) {
	t.Helper()
	g := newGroup(t)
	g.write(t, "cgroup.procs", h.PID)
	g.write(t, g.limit, 1<<20) // what it has already is not the group's
	client := debug.NewClient(h.Socket())
	eventually(t, "the kernel kills the agent", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		for range 50 {
			_, _ = client.Metrics(ctx) // each takes some
		}
		if err := syscall.Kill(h.PID, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d is there: %v", h.PID, err)
		}
		return nil
	})
	if !g.killed(t) {
		t.Error("the agent has ended, but not because of its memory")
	}
}

// TestWhyMissesNothing: of a burst of packets, dropped for several reasons in the kernel and in the agent, `viaduct why` counts every one, as the
// kernel's counters of the interface do.
func TestWhyMissesNothing(t *testing.T) {
	l := twoSubnets(t)
	h, mallory := &l.Hosts[0], space(t, l, "mallory")
	cmd := exec.CommandContext(t.Context(), viaduct, "why", "mallory", "--for", "0", "--quiet", "-o", "json", "--socket", h.Socket())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	base := entered(t, l, "mallory")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // it has no way to say that it has begun to count
	const burst = 5000
	for _, args := range [][]string{
		{"--mode=ports", "--target=10.0.2.10"},              // new flows, most of them refused for want of credit
		{"--mode=destinations", "--target=198.51.100.0/24"}, // no route
	} {
		var sent traffic.FloodResult
		all := append([]string{"flood"}, args...)
		if err := tools().Run(t.Context(), mallory, &sent, append(all, "--rate=20000", fmt.Sprintf("--count=%d", burst), "--duration=20s")...); err != nil {
			t.Fatal(err)
		}
		if sent.Sent != burst {
			t.Fatalf("%d sent", sent.Sent)
		}
	}
	agent := debug.NewClient(h.Socket())
	eventually(t, "all packets have ended", func(ctx context.Context) error {
		s, err := agent.Stats(ctx)
		if err == nil && (s.InFlight != 0 || s.Waiting != 0) {
			err = fmt.Errorf("%d in flight, %d waiting", s.InFlight, s.Waiting)
		}
		return err
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var s struct {
		Entered uint64
		Off     int64
		Lines   []struct {
			Outcome, Reason string
			Packets         int64
		}
	}
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	sum, dropped := int64(0), int64(0)
	for _, x := range s.Lines {
		if sum += x.Packets; x.Outcome == "dropped" {
			dropped += x.Packets
		}
		if x.Outcome == "dropped" && x.Reason == "" {
			t.Errorf("a drop without a reason: %+v", x)
		}
	}
	if now := entered(t, l, "mallory"); s.Entered < 2*burst || s.Entered > now-base || sum != int64(s.Entered) || s.Off != 0 || dropped < burst {
		t.Errorf("%d packets were sent, %d came in at the interface; %d are counted, %d of them dropped, off by %d:\n%s", 2*burst, now-base, sum, dropped, s.Off, out.String())
	}
}

// entered is how many frames the kernel has received on the host's end of a VM's interface.
func entered(t *testing.T, l *lab.Lab, vm string) uint64 {
	t.Helper()
	v, err := l.VM(vm)
	if err != nil {
		t.Fatal(err)
	}
	return counted(t, l.Hosts[0].Space, v.Interface)
}

func counted(t *testing.T, s ns.Space, iface string) uint64 {
	t.Helper()
	h, err := s.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(iface)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Statistics.RxPackets
}

// TestPinsTakenAway: somebody removes all pins of the datapath. The agent puts them back, and what is established outlives it as if nothing
// had been.
func TestPinsTakenAway(t *testing.T) {
	l := twoSubnets(t)
	h, mallory, carol := &l.Hosts[0], space(t, l, "mallory"), space(t, l, "carol")
	agent := debug.NewClient(h.Socket())
	sendFlow(t, mallory, 1)
	before := receivedBy(t, carol)
	pins := "/sys/fs/bpf/viaduct/" + l.Name + "_" + h.Name
	if err := os.RemoveAll(pins); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pins are back", func(ctx context.Context) error {
		m, err := agent.Metrics(ctx)
		if err == nil && strings.Contains(m, "\nviaduct_datapath_mended_total 0\n") {
			err = errors.New("nothing is mended")
		}
		return err
	})
	kill(t, h)
	sendFlow(t, mallory, rate)
	awaitReceived(t, carol, before+rate)
	if err := l.StartAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if s, err := agent.Stats(t.Context()); err != nil || s.Adopted == 0 || len(s.Troubles) != 0 {
		t.Errorf("the next agent: %+v, %v", s, err)
	}
}
