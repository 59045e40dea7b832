package agent

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// niceness of the whole process, which is what Open vSwitch's start script gives its daemon: a new flow
// should not wait until some process has used up its time slice. All threads have it, for a worker that waits for one of
// the runtime's waits as long as that thread does.
const niceness = -10

// spareProcessors are for workers that come back from the kernel: each needs one of the runtime's processors at once. Were there only as many as
// CPUs, all could be held by threads that the kernel has taken off theirs.
func spareProcessors(workers int) { runtime.GOMAXPROCS(runtime.NumCPU() + workers + 2) }

// hurry prepares the process for short delays on a busy machine. It comes first of all: packets may be waiting for this agent since another has ended.
func hurry() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		// New threads take after the one that makes them.
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, niceness); err != nil && err != unix.ESRCH {
			return fmt.Errorf("priority %d: %w", niceness, err)
		}
	}
	return hurrySession()
}

// hurrySession does the same for the process's session when it leads one: where the kernel groups
// processes by session (sched(7), autogroup), niceness counts within the group only.
func hurrySession() error {
	if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
		return err
	}
	err := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(niceness)), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // this kernel does not
	}
	return err
}
