package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/clock"
	"github.com/viaduct-net/viaduct/internal/base/offheap"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ebpf"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
	"github.com/viaduct-net/viaduct/internal/path/xlate"
)

// million is how many flows memory is measured with, and the bound of the tables.
const million = 1_000_000

// plainFlood is where the flood of destinations goes: every packet has a wildcard entry of its own, with the tags and
// actions that the simulator gives it.
const plainFlood = `
bridge blue
bridge red
router r
vm a blue 02:00:00:00:00:0a 10.0.1.10
vm c red 02:00:00:00:00:0c 10.0.2.10
link blue r=10.0.1.1/24
link red r=10.0.2.1/24
route r 10.128.0.0/9 via 10.0.2.10 out r:red
`

// flowBytes: what a flow takes in user space and in the kernel, of a million of the plain flood, each with its own wildcard entry.
func flowBytes(_ context.Context, b *bench) (err error) {
	dp, err := ebpf.Open(ebpf.Options{Name: fmt.Sprintf("bench%d", os.Getpid()), MaxFlows: million})
	if err != nil {
		return err
	}
	name := ebpf.Options{Name: fmt.Sprintf("bench%d", os.Getpid())}
	defer func() { err = errors.Join(err, dp.Close(), ebpf.Cleanup(name)) }()
	topo := pathtest.MustParse(plainFlood)
	in := topo.MustInject("a udp eth=a>r:blue ip=10.0.1.10>10.200.0.1 ports=1>53")
	var c sim.Context
	topo.Simulate(&c, &in)
	ports := xlate.NewPorts().With(pathtest.ID("a"), 1).With(pathtest.ID("c"), 2)
	as, tags, _ := ports.Translate(nil, c.Tags, c.Actions, &topo.Snapshot)
	if len(as) == 0 {
		return errors.New("the simulator does not forward the flood")
	}
	k := in.View.Key
	k.InPort = 1

	buckets, err := tableMemory()
	if err != nil {
		return err
	}
	heap0, slab0, err := memory()
	if err != nil {
		return err
	}
	t := flow.New(flow.Config{MaxFlows: million, Idle: time.Hour}, dp, clock.NewSystem())
	for i := range million {
		binary.BigEndian.PutUint32(k.Dst[12:], 10<<24|1<<23|uint32(i))
		for j := range tags {
			if tags[j].Kind == tag.Route {
				tags[j].Addr = k.Dst
			}
		}
		t.Add(&k, c.Mask, as, tags, flow.Normal)
		if i%64 == 63 {
			if err := t.Flush(); err != nil {
				return err
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if s := t.Stats(); s.Flows != million || s.Entries != million || s.Installed != million {
		return fmt.Errorf("not a million flows: %+v", s)
	}
	heap1, slab1, err := memory()
	if err != nil {
		return err
	}
	user, kernel := float64(heap1-heap0)/million, (float64(slab1-slab0)+float64(buckets))/million
	gc := time.Now()
	runtime.GC()
	fmt.Fprintf(os.Stderr, "  %d tags, %d actions; a garbage collection takes %v\n", len(tags), len(as), time.Since(gc).Round(100*time.Microsecond))
	b.emit(figure("flow_bytes", user+kernel, "bytes"), figure("flow_bytes_user", user, "bytes"), figure("flow_bytes_kernel", kernel, "bytes"))
	return b.goThrough(t, dp)
}

// goThrough: how long it takes to read a full table back and audit it, and to be rid of it by turns after a change that all of it
// depends on.
func (b *bench) goThrough(t *flow.Table, dp *ebpf.Datapath) error {
	start, wrong := time.Now(), 0
	if err := dp.DumpFlows(func(f *datapath.FlowInfo) bool {
		if !t.Audit(f) {
			wrong++
		}
		return true
	}); err != nil {
		return err
	}
	if wrong > 0 {
		return fmt.Errorf("the audit calls %d flows wrong", wrong)
	}
	b.emit(figure("flow_audit_ms", float64(time.Since(start).Milliseconds()), "ms"))
	start = time.Now()
	turns := 0
	for t.InvalidatePort(1); t.Stale(); turns++ {
		t.Tend(64)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	took := time.Since(start)
	if s := t.Stats(); s.Flows != 0 || s.Invalidated != million {
		return fmt.Errorf("not all flows have gone: %+v", s)
	}
	b.emit(figure("flow_invalidate_ms", float64(took.Milliseconds()), "ms"), figure("flow_invalidate_turn_us", float64(took.Microseconds())/float64(turns), "us"))
	return nil
}

// memory is what this process has on its heap and in tables beside it, and what the kernel has in slabs that it cannot give back.
func memory() (heap, slab uint64, err error) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	info, err := fdinfo("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	kb, err := strconv.ParseUint(strings.TrimSuffix(info["SUnreclaim"], " kB"), 10, 64)
	return m.HeapInuse + offheap.Mapped(), kb << 10, err
}

// tableMemory is what the kernel counts for the empty table of flows: its buckets.
func tableMemory() (uint64, error) {
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		if info, err := fdinfo(f); err == nil && info["map_type"] == "1" && info["key_size"] == "64" {
			return strconv.ParseUint(info["memlock"], 10, 64)
		}
	}
	return 0, errors.New("this process has no table of flows")
}
