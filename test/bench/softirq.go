package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// softirqNiceness is ksoftirqd's while something is measured.
const softirqNiceness = -20

// preferSoftirqs has the kernel's threads for softirqs (ksoftirqd) get a CPU before anybody else who is not SCHED_RR, and returns what undoes it.
// On CPUs that are always busy, packets on their way between namespaces, a victim's like a rogue's, otherwise wait for up to 130 ms until a thread of niceness 0 has its turn
// among sessions of floods: that is the machine's doing, not a switch's, whichever it is.
func preferSoftirqs() (undo func() error, err error) {
	threads, err := softirqThreads()
	if err != nil {
		return nil, err
	}
	was := make(map[int]int)
	undo = func() error {
		var errs []error
		for tid, nice := range was {
			errs = append(errs, unix.Setpriority(unix.PRIO_PROCESS, tid, nice))
		}
		return errors.Join(errs...)
	}
	for _, tid := range threads {
		nice, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, tid, softirqNiceness)
		}
		if err != nil {
			return nil, errors.Join(err, undo())
		}
		was[tid] = 20 - nice // as the kernel's call returns it
	}
	return undo, nil
}

func softirqThreads() (tids []int, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(comm), "ksoftirqd/") {
			continue // it may have ended
		}
		tid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, err
		}
		tids = append(tids, tid)
	}
	return tids, nil
}
