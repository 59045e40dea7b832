package lab

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/impair"
	"github.com/viaduct-net/viaduct/internal/lab/labtest"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

func TestFaultsRefused(t *testing.T) {
	two, err := plan(t.Context(), t.TempDir(), "", "/bin/viaduct", parse(t, examples.TwoHosts))
	if err != nil {
		t.Fatal(err)
	}
	one, err := plan(t.Context(), t.TempDir(), "", "/bin/viaduct", parse(t, examples.TwoSubnets))
	if err != nil {
		t.Fatal(err)
	}
	two.Faults = []Fault{{Kind: Partition, Names: []string{"h1", "h2"}}}
	for _, c := range []struct {
		l    *Lab
		f    Fault
		want string
	}{
		{two, Fault{Kind: Partition, Names: []string{"h1", "h3"}}, `laboratory two-hosts has no host "h3": faults are of hosts and of "store"`},
		{two, Fault{Kind: Kill, Names: []string{"alice"}}, `no host "alice"`},
		{two, Fault{Kind: Kill, Names: []string{"h1", "h2"}}, `kill is of one process, got ["h1" "h2"]`},
		{two, Fault{Kind: Partition, Names: []string{"h1"}}, `partition is of the way between two, got ["h1"]`},
		{two, Fault{Kind: Delay, Names: []string{"h1", "h1"}, Delay: time.Second}, `the way between two`},
		{two, Fault{Kind: Partition, Names: []string{"h2", "h1"}}, `partition h1 h2: is so already`},
		{two, Fault{Kind: Loss, Names: []string{"h1", Store}}, `loss of 0%`},
		{two, Fault{Kind: Loss, Names: []string{"h1", Store}, Loss: 1.5}, `loss of 150%: want 0.001% to 100%`},
		{two, Fault{Kind: Loss, Names: []string{"h1", Store}, Loss: 1e-6}, `loss of 0.0001%: want 0.001% to 100%`},
		{two, Fault{Kind: Loss, Names: []string{"h1", Store}, Loss: math.NaN()}, `loss of NaN%`},
		{two, Fault{Kind: Delay, Names: []string{"h1", Store}, Delay: time.Hour}, `delay of 1h0m0s`},
		{one, Fault{Kind: Partition, Names: []string{"h1", Store}}, `has no underlay`},
	} {
		if err := c.l.check(&c.f); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.f, err, c.want)
		}
	}
	for _, args := range [][]string{{"h1", "h2", "5"}, {"h1", "h2", "x%"}} {
		if f, err := parseFault(Loss, args); err == nil {
			t.Errorf("loss of %q is %+v", args, f)
		}
	}
	for _, percent := range []string{"2.5%", "7%", "0.001%", "100%"} {
		f, err := parseFault(Loss, []string{"h2", "h1", percent})
		if err = errors.Join(err, f.bounds()); err != nil || f.String() != "loss h2 h1 "+percent {
			t.Errorf("%s, %v", f, err)
		}
	}
	if f, err := parseFault(Delay, []string{"h2", "h1", "20ms"}); err != nil || f.String() != "delay h2 h1 20ms" {
		t.Errorf("%s, %v", f, err)
	}
}

// said runs a command of `viaduct lab`.
func said(t *testing.T, args ...string) error {
	t.Helper()
	c := Command()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(io.Discard)
	c.SetArgs(args)
	return c.ExecuteContext(t.Context())
}

func TestFaultArguments(t *testing.T) {
	for args, want := range map[string]string{
		"loss h1 h2 NaN%":           `loss of NaN%: want 0.001% to 100%`,
		"loss h1 h2 Inf%":           `loss of +Inf%: want 0.001% to 100%`,
		"loss h1 h2 -Inf%":          `loss of -Inf%: want 0.001% to 100%`,
		"loss h1 h2 0%":             `loss of 0%: want 0.001% to 100%`,
		"loss h1 h2 1e-400%":        `loss of 0%: want 0.001% to 100%`,
		"loss h1 h2 0.0001%":        `loss of 0.0001%: want 0.001% to 100%`,
		"loss h1 h2 101%":           `loss of 101%: want 0.001% to 100%`,
		"loss h1 h2 1e400%":         `loss "1e400%": want a percentage, such as 5%`,
		"loss h1 h2 -1%":            `loss of -1%: want 0.001% to 100%`,
		"loss -1% h1 h2":            `loss of -1%: want 0.001% to 100%`,
		"loss h1 h2 -- -1%":         `loss of -1%: want 0.001% to 100%`,
		"loss h1 h2 -x":             `unknown shorthand flag: 'x' in -x`,
		"delay h1 h2 -5ms":          `delay of -5ms: want 1µs to 1m0s`,
		"delay h1 h2 -- -5ms":       `delay of -5ms: want 1µs to 1m0s`,
		"delay h1 h2 0":             `delay of 0s: want 1µs to 1m0s`,
		"delay h1 h2 61s":           `delay of 1m1s: want 1µs to 1m0s`,
		"delay h1 h2 99999999h":     `delay "99999999h": want a time of 1m0s at most, such as 20ms`,
		"delay h1 h2 5":             `delay "5": want a time of 1m0s at most, such as 20ms`,
		"delay h1 h2 -5ms --for 1s": `delay of -5ms: want 1µs to 1m0s`,
		"kill h1 --for -1s":         `--for -1s: want a time`,
		"kill -1":                   `unknown shorthand flag: '1' in -1`,
	} {
		if err := said(t, append([]string{"fault", "--name", "nosuch"}, strings.Fields(args)...)...); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
	for _, args := range []string{"loss h1 h2 100%", "loss h1 h2 0.001%", "delay h1 h2 1us", "delay h1 h2 1m", "partition h1 h2", "heal", "list", "store down", "store up"} {
		const want = "no laboratory nosuch: `viaduct lab list` shows those there are"
		if err := said(t, append([]string{"fault", "--name", "nosuch"}, strings.Fields(args)...)...); err == nil || err.Error() != want || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}

// reaches says whether a namespace has an answer from an address: within a second, or as soon as a busy machine gets to it when it is wanted.
func reaches(t *testing.T, from ns.Space, address string, want bool) bool {
	t.Helper()
	patience := "1"
	if want {
		patience = "30"
	}
	cmd := exec.Command("ping", "-n", "-c", "1", "-w", patience, address)
	if err := from.Start(cmd); err != nil {
		t.Fatal(err)
	}
	return cmd.Wait() == nil
}

// wired makes the namespaces and the underlay of a laboratory of two hosts, whose daemons would sleep. It goes with the test.
func wired(t *testing.T) *Lab {
	t.Helper()
	labtest.NeedRoot(t)
	labtest.Restored(t, testName(t))
	l, err := plan(t.Context(), Root, testName(t), "/bin/sleep", parse(t, examples.TwoHosts))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.claim(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	for _, s := range l.spaces() {
		if err := s.Create(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.wire(); err != nil {
		t.Fatal(err)
	}
	return l
}

// The underlay of a laboratory, and processes in place of its daemons.
func TestFaults(t *testing.T) {
	l := wired(t)
	h1, store := &l.Hosts[0], l.Server.Address.Addr().String()
	const h2 = "192.168.77.2"
	expect := func(what string, other, server bool) {
		t.Helper()
		if got := [2]bool{reaches(t, h1.Space, h2, other), reaches(t, h1.Space, store, server)}; got != [2]bool{other, server} {
			t.Errorf("%s: h1 reaches h2 and the store: %v, want %v, %v", what, got, other, server)
		}
	}
	do := func(f Fault) {
		t.Helper()
		if err := l.Break(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	heal := func(faults ...Fault) {
		t.Helper()
		if err := l.Heal(t.Context(), faults...); err != nil {
			t.Fatal(err)
		}
	}
	expect("new", true, true)
	do(Fault{Kind: Partition, Names: []string{"h2", "h1"}})
	expect("partition", false, true)
	do(Fault{Kind: Loss, Names: []string{"h1", Store}, Loss: 1})
	expect("loss", false, false)
	heal(l.Faults[0])
	expect("healed", true, false)
	do(Fault{Kind: Loss, Names: []string{"h1", Store}, Loss: 1e-5})
	expect("less loss", true, true)

	switch err := l.Break(t.Context(), Fault{Kind: Delay, Names: []string{"h1", "h2"}, Delay: 100 * time.Millisecond}); {
	case errors.Is(err, impair.ErrNoDelay) && os.Getenv("VIADUCT_NEED_NETEM") == "": // said, and things are as they were
		if len(l.Faults) != 1 {
			t.Errorf("what could not be made is a fault: %v", l.Faults)
		}
	case err != nil:
		t.Fatal(err)
	default:
		start := time.Now()
		expect("delay", true, true)
		if d := time.Since(start); d < 200*time.Millisecond {
			t.Errorf("there and back in %s", d)
		}
		heal(l.Faults[1])
	}
	for end := time.Now().Add(10 * time.Second); ; { // a delay that has stayed has each try take as long
		start := time.Now()
		expect("no delay", true, true)
		if time.Since(start) < 200*time.Millisecond {
			break
		}
		if time.Now().After(end) {
			t.Fatal("healed, but there and back takes as long as before")
		}
	}

	p, err := l.start("agent", h1.Space, filepath.Join(l.dir, "log"), "1000")
	if err != nil {
		t.Fatal(err)
	}
	h1.PID = p.pid
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	do(Fault{Kind: Pause, Names: []string{"h1"}})
	awaitPaused(t, p.pid, true)
	heal(l.Faults[1])
	awaitPaused(t, p.pid, false)
	do(Fault{Kind: Pause, Names: []string{"h1"}})
	do(Fault{Kind: Kill, Names: []string{"h1"}})
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		t.Fatal("the killed process runs")
	}
	if err := l.Break(t.Context(), Fault{Kind: Pause, Names: []string{"h1"}}); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("pause what is dead: %v", err)
	}
	found, err := Open(l.Name)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range found.Faults {
		names = append(names, f.String())
	}
	if d := cmp.Diff([]string{"loss h1 store 0.001%", "kill h1"}, names); d != "" {
		t.Error(d)
	}
	if _, err := l.LaunchAgent(h1); err != nil || len(l.Faults) != 1 {
		t.Errorf("after the agent was started: %v, %v", l.Faults, err)
	}
	heal(l.Faults...)
	if len(l.Faults) != 0 {
		t.Errorf("healed, but there are %v", l.Faults)
	}

	// As commands say it.
	server, err := l.start("server", l.Server.Space, filepath.Join(l.dir, "log"), "1000")
	if err != nil {
		t.Fatal(err)
	}
	l.Server.PID = server.pid
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want string // error
		left string // faults
	}{
		{"partition h1 store", "", "partition h1 store"},
		{"store up", "nobody has taken its store down", "partition h1 store"},
		{"heal h9", `laboratory ` + l.Name + ` has no host "h9", nor is that a kind of fault (partition, loss, delay, kill, pause): faults are of hosts and of "store"`, "partition h1 store"},
		{"heal partition banana", `has no host "banana", nor is that a kind of fault`, "partition h1 store"},
		{"heal h2", `has no fault "h2"`, "partition h1 store"},
		{"heal kill", `has no fault "kill"`, "partition h1 store"},
		{"pause store", "", "partition h1 store, pause store"},
		{"store up", "", "partition h1 store"},
		{"store down", "", "partition h1 store, kill store"},
		{"store down", "kill store: is so already", "partition h1 store, kill store"},
		{"store up", "the end of its log", "partition h1 store"}, // it is started, but this is no server
		{"heal store", "", ""},
	} {
		err := said(t, append([]string{"fault", "--name", l.Name}, strings.Fields(c.args)...)...)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
		var left []string
		for _, f := range again(t, l).Faults {
			left = append(left, f.String())
		}
		if got := strings.Join(left, ", "); got != c.left {
			t.Errorf("%s: there are %q, want %q", c.args, got, c.left)
		}
	}
	select {
	case <-server.done:
	case <-time.After(time.Minute):
		t.Error("the store was taken down, and its server runs")
	}
}

// awaitPaused waits until the kernel has stopped a process, or has it go on.
func awaitPaused(t *testing.T, pid int, want bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		state := strings.Fields(string(b))[2]
		if (state == "T") == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %d is in state %s, want it paused: %v", pid, state, want)
		}
	}
}
