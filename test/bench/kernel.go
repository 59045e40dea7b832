package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

const statsSysctl = "/proc/sys/kernel/bpf_stats_enabled"

// established: run time over runs of the agent's classifier programs during a TCP stream, as
// the kernel accounts them.
func (b *bench) established(ctx context.Context, l *lab.Lab, from, to ns.Space) (err error) {
	before, err := os.ReadFile(statsSysctl)
	if err != nil {
		return err
	}
	if err := os.WriteFile(statsSysctl, []byte("1"), 0); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.WriteFile(statsSysctl, bytes.TrimSpace(before), 0)) }()
	pid := l.Hosts[0].PID
	time0, runs0, err := programStats(pid)
	if err != nil {
		return err
	}
	if _, err := b.stream(ctx, from, to, bob); err != nil {
		return err
	}
	time1, runs1, err := programStats(pid)
	if err != nil {
		return err
	}
	if runs1 == runs0 {
		return errors.New("no classifier program of the agent has run")
	}
	b.emit(figure("established_ns", float64(time1-time0)/float64(runs1-runs0), "ns/packet"))
	return nil
}

// programStats adds up the statistics of all traffic classifiers that a process holds.
func programStats(pid int) (timeNS, runs uint64, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return 0, 0, err
	}
	seen := map[string]bool{} // the same program may be open twice
	for _, f := range files {
		info, err := fdinfo(f)
		if err != nil {
			continue // closed meanwhile
		}
		const schedCLS = "3" // BPF_PROG_TYPE_SCHED_CLS
		if info["prog_type"] != schedCLS || seen[info["prog_id"]] {
			continue
		}
		seen[info["prog_id"]] = true
		t, err1 := strconv.ParseUint(info["run_time_ns"], 10, 64)
		n, err2 := strconv.ParseUint(info["run_cnt"], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", f, err)
		}
		timeNS, runs = timeNS+t, runs+n
	}
	if len(seen) == 0 {
		return 0, 0, fmt.Errorf("process %d holds no classifier program", pid)
	}
	return timeNS, runs, nil
}

func fdinfo(file string) (map[string]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	info := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok {
			info[k] = strings.TrimSpace(v)
		}
	}
	return info, nil
}
