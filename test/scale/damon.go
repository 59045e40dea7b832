package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// damon are the kernel's threads that look, a few times a second, for memory that nobody uses (Linux, admin-guide/mm/damon). On virtual machines that
// give memory back they are on; each time they hold up for up to 0.2 s who uses much, as 500 agents in one process do.
type damon []string

func findDamon() (d damon, err error) {
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	for _, comm := range comms {
		if b, err := os.ReadFile(comm); err == nil && strings.HasPrefix(string(b), "kdamond.") {
			d = append(d, filepath.Join(filepath.Dir(comm), "schedstat"))
		}
	}
	return d, nil
}

// ran is the CPU time that they have had; the first field of schedstat (Linux, scheduler/sched-stats).
func (d damon) ran() (sum time.Duration, err error) {
	for _, file := range d {
		b, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %q", file, b)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
