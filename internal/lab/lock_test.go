package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/viaduct-net/viaduct/internal/lab/examples"
)

// written is a laboratory that is nothing but its directory.
func written(t *testing.T) *Lab {
	t.Helper()
	l, err := plan(t.Context(), t.TempDir(), "", "/bin/sleep", parse(t, examples.TwoHosts))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(l.dir, 0o755), l.save()); err != nil {
		t.Fatal(err)
	}
	return l
}

// again opens a laboratory as another process would.
func again(t *testing.T, l *Lab) *Lab {
	t.Helper()
	other, err := open(filepath.Dir(l.dir), l.Name)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func impatient(t *testing.T, d time.Duration) {
	before := lockPatience
	lockPatience = d
	t.Cleanup(func() { lockPatience = before })
}

// Whoever changes a laboratory begins with what others have made of it, and pointers into it stay good.
func TestChangesAddUp(t *testing.T) {
	l := written(t)
	const many = 20
	var all sync.WaitGroup
	for i := range many {
		x := again(t, l)
		all.Go(func() {
			err := x.change(t.Context(), func() error {
				x.Faults = append(x.Faults, Fault{Kind: Pause, Names: []string{fmt.Sprint(i)}})
				return x.change(t.Context(), x.save) // within a change is a part of it
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(again(t, l).Faults); n != many {
		t.Errorf("%d of %d changes are left", n, many)
	}

	h2, bob, binary := &l.Hosts[1], &l.VMs[1], l.Binary
	x := again(t, l)
	if err := x.change(t.Context(), func() error {
		x.Hosts[1].PID, x.VMs[1].Host, x.Server.PID = 17, "h1", 18
		return x.save()
	}); err != nil {
		t.Fatal(err)
	}
	l.Binary = "/bin/true" // of the next agent that is started by us
	if err := l.change(t.Context(), l.save); err != nil {
		t.Fatal(err)
	}
	if h2.PID != 17 || bob.Host != "h1" || l.Server.PID != 18 || len(l.Faults) != many || l.Binary == binary {
		t.Errorf("after a change by others: %+v, %+v, server %d, %d faults, %s", h2, bob, l.Server.PID, len(l.Faults), l.Binary)
	}
}

// Who does not get its turn says who has it, and changes nothing.
func TestChangeWaits(t *testing.T) {
	l := written(t)
	x, y := again(t, l), again(t, l)
	unlock, err := x.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("impatient", func(t *testing.T) {
		impatient(t, 50*time.Millisecond)
		err := y.Down()
		want := fmt.Sprintf("laboratory two-hosts: process %d (%s", os.Getpid(), os.Args[0])
		if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "changing it for more than 50ms") {
			t.Errorf("down: %v, want %s...", err, want)
		}
		again(t, l) // it is there
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := y.Break(ctx, Fault{Kind: Kill, Names: []string{"h1"}}); !errors.Is(err, context.Canceled) || len(again(t, l).Faults) > 0 {
		t.Errorf("interrupted: %v", err)
	}

	done := make(chan error, 1)
	go func() { done <- y.change(t.Context(), y.save) }()
	if err := os.RemoveAll(l.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(l.dir, 0o755); err != nil { // another one of this name
		t.Fatal(err)
	}
	z := again(t, l)
	other, err := z.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	select {
	case err := <-done:
		t.Fatalf("the lock of what is gone was taken for one: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := os.RemoveAll(l.dir); err != nil {
		t.Fatal(err)
	}
	other()
	if err := <-done; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("change of what is gone: %v", err)
	}
	if err := x.Down(); err != nil {
		t.Errorf("down of what is gone: %v", err)
	}
}

// A process that is started within a change runs on without its lock.
func TestLockIsNotInherited(t *testing.T) {
	l := written(t)
	cmd := exec.Command("/bin/sleep", "1000")
	if err := l.change(t.Context(), cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	impatient(t, 0)
	if err := again(t, l).change(t.Context(), l.save); err != nil {
		t.Error(err)
	}
}

// Faults that are made at once, as several commands do, are all there, and so it is when they are healed at once.
func TestFaultsAtOnce(t *testing.T) {
	l := wired(t)
	for i := range l.Hosts {
		h := &l.Hosts[i]
		p, err := l.start("agent", h.Space, filepath.Join(l.dir, h.Name), "1000")
		if err != nil {
			t.Fatal(err)
		}
		h.PID = p.pid
	}
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	faults := []Fault{
		{Kind: Partition, Names: []string{"h1", "h2"}},
		{Kind: Loss, Names: []string{"h1", Store}, Loss: 0.03},
		{Kind: Loss, Names: []string{"h2", Store}, Loss: 0.5},
		{Kind: Pause, Names: []string{"h1"}},
		{Kind: Pause, Names: []string{"h2"}},
	}
	each := func(do func(*Lab, Fault) error) []string {
		t.Helper()
		var all sync.WaitGroup
		for _, f := range faults {
			all.Go(func() {
				x, err := Open(l.Name)
				if err == nil {
					err = do(x, f)
				}
				if err != nil {
					t.Errorf("%s: %v", f, err)
				}
			})
		}
		all.Wait()
		var left []string
		for _, f := range again(t, l).Faults {
			left = append(left, f.String())
		}
		slices.Sort(left)
		return left
	}
	for range 4 {
		made := each(func(x *Lab, f Fault) error { return x.Break(t.Context(), f) })
		if d := cmp.Diff([]string{"loss h1 store 3%", "loss h2 store 50%", "partition h1 h2", "pause h1", "pause h2"}, made); d != "" {
			t.Fatalf("made at once: %s", d)
		}
		if left := each(func(x *Lab, f Fault) error { return x.Heal(t.Context(), f) }); len(left) > 0 {
			t.Fatalf("healed at once, there are %v", left)
		}
	}
}
