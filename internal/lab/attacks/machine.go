package attacks

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is who has had the machine's CPUs so far. Of two of them the difference tells what happened in between: the time of a process
// that has ended meanwhile is with who has waited for it.
type Usage struct {
	At     time.Time
	Ours   time.Duration // this process and its descendants
	Kernel time.Duration // kernel threads: softirqs that nobody's own time pays for, RCU, workers
	Others time.Duration // everybody else
	Stolen time.Duration // by the hypervisor
}

// Since is what was used after an earlier Usage, per second: in CPUs.
func (u Usage) Since(v Usage) (ours, kernel, others, stolen float64) {
	d := float64(max(u.At.Sub(v.At), 1))
	return float64(u.Ours-v.Ours) / d, float64(u.Kernel-v.Kernel) / d, float64(u.Others-v.Others) / d, float64(u.Stolen-v.Stolen) / d
}

// hertz is USER_HZ, the unit of times in /proc.
const hertz = 100

func ticks(n int64) time.Duration { return time.Duration(n) * time.Second / hertz }

// process is what /proc/PID/stat says of one.
type process struct {
	parent int
	own    time.Duration // user and system
	waited time.Duration // the same of children that have ended and were waited for
}

func readProcess(pid int) (p process, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // behind the name, which may have blanks
	f := strings.Fields(rest)
	if len(f) < 15 {
		return p, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	var n [4]int64
	for i := range n {
		if n[i], err = strconv.ParseInt(f[11+i], 10, 64); err != nil {
			return p, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
	}
	p.own, p.waited = ticks(n[0]+n[1]), ticks(n[2]+n[3])
	p.parent, err = strconv.Atoi(f[1])
	return p, err
}

// UsageNow reads /proc.
func UsageNow() (Usage, error) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return Usage{}, err
	}
	u, all := Usage{At: time.Now()}, map[int]process{}
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := readProcess(pid)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue // it has just ended
			}
			return u, err
		}
		all[pid] = p
	}
	const kthreadd = 2
	for pid, p := range all {
		switch root(all, pid, os.Getpid(), kthreadd) {
		case os.Getpid():
			u.Ours += p.own + p.waited
		case kthreadd:
			u.Kernel += p.own
		default:
			u.Others += p.own + p.waited
		}
	}
	u.Stolen, err = stolen()
	return u, err
}

// root is the first of roots among a process and its forebears; 0: none is.
func root(all map[int]process, pid int, roots ...int) int {
	for range len(all) {
		for _, r := range roots {
			if pid == r {
				return r
			}
		}
		p, ok := all[pid]
		if !ok {
			return 0
		}
		pid = p.parent
	}
	return 0
}

func stolen() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal ...
	if len(f) < 9 {
		return 0, fmt.Errorf("/proc/stat: %q", line)
	}
	n, err := strconv.ParseInt(f[8], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/stat: %w", err)
	}
	return ticks(n), nil
}

// CPUTime is how long a process has run, with all its threads, to the nanosecond: what /proc counts in steps of 10 ms is too rough for the sum
// of many processes over a part of a second.
func CPUTime(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED (linux/posix-timers_types.h)
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|sched, &t); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// Memory is what a process occupies, in bytes.
func Memory(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	var kb int64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		return 0, fmt.Errorf("/proc/%d/status: VmRSS: %w", pid, err)
	}
	return kb << 10, nil
}
