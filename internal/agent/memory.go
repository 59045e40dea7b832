package agent

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/offheap"
)

// The agent that needs more memory than its control group may have is killed, and the next one begins where it ended: that interrupts nothing
// but new flows, and again and again. So the garbage collector is told of a limit below the group's. Of what the agent holds, the bounds are
// configured: flows (about 533 bytes each with the kernel's part), connections, neighbours. Tables of the former two are not in the collector's memory
// (ADR 29): they are within the limit as well, and the collector's own is what they leave of it.

// softPart is which part of the group's limit the collector may use: the rest is for what it does not see, stacks of threads and the
// kernel's maps, which are the group's too.
const softPart = 0.9

// limitMemory tells the garbage collector of a limit, in MiB; 0: what suits the control group. The variable GOMEMLIMIT, when it is set, stands.
func (a *Agent) limitMemory(mib int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		a.memory.Store(0)
		return
	}
	limit := int64(math.MaxInt64)
	if mib > 0 {
		limit = mib << 20
	} else if n, ok := groupLimit("/proc/self/cgroup", "/sys/fs/cgroup"); ok {
		limit = int64(float64(n) * softPart)
	}
	if a.memory.Swap(limit) != limit && limit != math.MaxInt64 {
		a.log.Info("memory is limited", "mib", limit>>20)
	}
	leave(limit, int64(offheap.Mapped()))
}

// leave tells the collector of what tables leave of a limit.
func leave(limit, tables int64) {
	if limit != math.MaxInt64 {
		limit = max(limit-tables, 0)
	}
	debug.SetMemoryLimit(limit)
}

// memoryLimit is what the agent is kept within; math.MaxInt64: there is no limit.
func (a *Agent) memoryLimit() int64 {
	if limit := a.memory.Load(); limit != 0 {
		return limit
	}
	return debug.SetMemoryLimit(-1)
}

// groupLimit is the least of the memory limits of the control groups that the process is in, of either version (cgroups(7)).
func groupLimit(membership, root string) (least int64, ok bool) {
	b, err := os.ReadFile(membership)
	if err != nil {
		return 0, false
	}
	least = math.MaxInt64
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.SplitN(s.Text(), ":", 3) // hierarchy, controllers, path
		if len(f) != 3 {
			continue
		}
		var mounts []string
		file := "memory.limit_in_bytes"
		switch {
		case f[1] == "":
			mounts, file = []string{root, filepath.Join(root, "unified")}, "memory.max"
		case strings.Contains(","+f[1]+",", ",memory,"):
			mounts = []string{filepath.Join(root, "memory")}
		}
		for _, mount := range mounts {
			for dir := f[2]; ; dir = path.Dir(dir) {
				if n, err := readLimit(filepath.Join(mount, dir, file)); err == nil {
					least = min(least, n)
				}
				if dir == "/" || dir == "." {
					break
				}
			}
		}
	}
	const none = 1 << 60 // version 1 says so with a number that large
	return least, least < none
}

func readLimit(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return math.MaxInt64, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

// checkMemory has the collector follow the tables, and says when it cannot keep the agent within the limit: it then works all the time, and packets
// wait for it.
func (a *Agent) checkMemory() {
	limit, tables := a.memoryLimit(), int64(offheap.Mapped())
	if a.memory.Load() != 0 {
		leave(limit, tables)
	}
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	used := int64(s[0].Value.Uint64()-s[1].Value.Uint64()) + tables
	var err error
	if limit != math.MaxInt64 && used > limit {
		err = fmt.Errorf("%d MiB are in use, and the limit is %d MiB; raise MemoryMax (systemctl edit viaduct-agent) or agent.memory.limit, or lower agent.datapath.max_flow_count",
			used>>20, limit>>20)
	}
	a.troubles.set(troubleMemory, "the agent needs more memory than it may have: it is slow, and may be killed", err)
}

// checkTables says when tables have come to be in Go's heap. What is there stays, so the trouble does, too.
func (a *Agent) checkTables(refused uint64) {
	var err error
	if refused > 0 {
		err = fmt.Errorf("the kernel has refused memory for them %d times; raise vm.max_map_count (sysctl), or LimitAS and LimitDATA (systemctl edit viaduct-agent), or with vm.overcommit_memory=2 "+
			"what may be committed, and restart the agent", refused)
	}
	a.troubles.set(troubleTables, "tables of flows and connections are in Go's heap: new flows may wait for the garbage collector", err)
}
