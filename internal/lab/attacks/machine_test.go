package attacks

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// What a child of ours uses is ours, while it runs and when it has ended, once.
func TestUsageCountsChildren(t *testing.T) {
	before, err := UsageNow()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "i=0; while :; do i=$((i+1)); done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }() // it has gone when the test has not failed
	const least = 200 * time.Millisecond
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		d, err := CPUTime(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if d >= least+2*ticks(1) { // /proc rounds down, user and system each
			break
		}
		if time.Now().After(end) {
			t.Fatal("the child does not run")
		}
	}
	running, err := UsageNow()
	if err != nil {
		t.Fatal(err)
	}
	if d := running.Ours - before.Ours; d < least {
		t.Errorf("%v of a child that runs, want %v", d, least)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	after, err := UsageNow()
	if err != nil {
		t.Fatal(err)
	}
	if d := after.Ours - running.Ours; d < 0 || d > time.Since(running.At)+time.Second {
		t.Errorf("%v more when it had ended", d)
	}
	if after.Others < before.Others || after.Kernel < before.Kernel || after.Stolen < before.Stolen {
		t.Errorf("time goes back: %+v, then %+v", before, after)
	}
}

func TestRoot(t *testing.T) {
	all := map[int]process{1: {}, 2: {}, 7: {parent: 2}, 10: {parent: 1}, 11: {parent: 10}, 12: {parent: 11}, 20: {parent: 1}, 30: {parent: 31}, 31: {parent: 30}}
	for pid, want := range map[int]int{7: 2, 2: 2, 10: 10, 12: 10, 20: 0, 1: 0, 99: 0, 30: 0} {
		if got := root(all, pid, 10, 2); got != want {
			t.Errorf("of %d: %d, want %d", pid, got, want)
		}
	}
	if _, err := readProcess(os.Getpid()); err != nil {
		t.Error(err)
	}
}
