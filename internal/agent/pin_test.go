package agent

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/conf"
)

func TestPinOrder(t *testing.T) {
	pairs := func(cpu int) string { return fmt.Sprint(cpu % 4) } // 0 and 4 are one core
	for _, c := range []struct {
		allowed []int
		core    func(int) string
		want    []int
	}{
		{[]int{0, 1, 2, 3}, func(cpu int) string { return fmt.Sprint(cpu) }, []int{3, 2, 1, 0}},
		{[]int{0, 1, 2, 3, 4, 5, 6, 7}, pairs, []int{7, 6, 5, 4, 3, 2, 1, 0}},
		{[]int{0, 1, 2, 3}, func(cpu int) string { return fmt.Sprint(cpu / 2) }, []int{3, 1, 2, 0}},
		{[]int{9}, pairs, []int{9}},
	} {
		if got := pinOrder(c.allowed, c.core); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.allowed, got, c.want)
		}
	}
}

func TestAutoGoesByCPUs(t *testing.T) {
	s := conf.Defaults()
	for _, c := range []struct {
		polling string
		cpus    int
		want    time.Duration
	}{
		{"auto", 2, 0}, {"auto", manyCPUs - 1, 0}, {"auto", manyCPUs, s.PollTime}, {"on", 1, s.PollTime}, {"off", 64, 0},
	} {
		if s.Polling = c.polling; pollTime(s, c.cpus) != c.want {
			t.Errorf("%s with %d CPUs: %v, want %v", c.polling, c.cpus, pollTime(s, c.cpus), c.want)
		}
	}
}

// A worker's thread keeps to its CPU, and threads that are made later do not take after it.
func TestPinThread(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	if all.Count() < 2 {
		t.Skip("there is one CPU")
	}
	last := 0
	for cpu := 0; cpu < 1024; cpu++ {
		if all.IsSet(cpu) {
			last = cpu
		}
	}
	affinity := make(chan unix.CPUSet)
	read := func() {
		runtime.LockOSThread() // and not unlocked: a new thread each
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			t.Error(err)
		}
		affinity <- set
	}
	go func() {
		runtime.LockOSThread()
		if err := pinThread(last); err != nil {
			t.Error(err)
		}
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			t.Error(err)
		}
		for range 4 {
			go read()
		}
		affinity <- set
	}()
	var want unix.CPUSet
	want.Set(last)
	pinned := 0
	for range 5 {
		switch set := <-affinity; set {
		case want:
			pinned++
		case all:
		default:
			t.Errorf("affinity %v, want %v or %v", set, want, all)
		}
	}
	if pinned != 1 {
		t.Errorf("%d threads are pinned, want one", pinned)
	}
}
