package agent

import (
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/conf"
)

// manyCPUs is how many a host has at least when some of them are for the agent: fewer are all needed by everybody.
const manyCPUs = 8

// decide is what a choice of auto, on and off means on a host.
func decide(choice string, cpus int) bool {
	return choice == "on" || choice == "auto" && cpus >= manyCPUs
}

// pollTime is for how long workers look out at most; 0: they do not.
func pollTime(s *conf.Settings, cpus int) time.Duration {
	if decide(s.Polling, cpus) {
		return s.PollTime
	}
	return 0
}

// anyCPU in the place of a CPU: the worker is not pinned.
const anyCPU = -1

// pins is which CPU each worker keeps to.
func (a *Agent) pins() []int {
	pins := slices.Repeat([]int{anyCPU}, len(a.workers))
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		a.log.Warn("packet workers are not pinned", "error", err)
		return pins
	}
	if !decide(a.boot.Settings.Pin, set.Count()) {
		return pins
	}
	var allowed []int
	for cpu := 0; len(allowed) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			allowed = append(allowed, cpu)
		}
	}
	if len(allowed) < len(pins) {
		a.log.Warn("packet workers are not pinned: there are more of them than CPUs", "workers", len(pins), "cpus", len(allowed))
		return pins
	}
	copy(pins, pinOrder(allowed, coreOf))
	a.log.Info("packet workers are pinned", "cpus", pins)
	return pins
}

// pinOrder is the order in which CPUs are given to workers: from the highest down, since interrupts and housekeeping begin at the lowest, and cores that were not
// given yet before the second CPU of one.
func pinOrder(allowed []int, core func(cpu int) string) []int {
	var first, second []int
	seen := map[string]bool{}
	for _, cpu := range slices.Backward(allowed) {
		if c := core(cpu); !seen[c] {
			seen[c] = true
			first = append(first, cpu)
		} else {
			second = append(second, cpu)
		}
	}
	return append(first, second...)
}

// coreOf names the core of a CPU; where the kernel does not say, each CPU is one.
func coreOf(cpu int) string {
	b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu))
	if err != nil {
		return fmt.Sprint(cpu)
	}
	return string(b)
}

// pinThread has the calling thread, which the goroutine must be locked to, run on one CPU.
func pinThread(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}
