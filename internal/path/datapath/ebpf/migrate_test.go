package ebpf

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Objects with other layouts: those that were in use, as they were then, and the one that is made for tests.
var (
	//go:embed testdata/layout2.o
	layout2 []byte
	//go:embed testdata/layout3.o
	layout3 []byte
	//go:embed bpf_other_bpfel.o
	layoutOther []byte
)

// leftFlows are those that an agent of a layout has left, from port 1 to port 2.
func leftFlows(version uint32) []datapath.Flow {
	ttl, there, back := action.Action{Op: action.DecTTL}, action.Action{Op: action.Output, Port: 2}, action.Action{Op: action.Output, Port: 1}
	fs := append(agentFlows(1, 2),
		datapath.Flow{Key: testKey(1, testFrame(3)), Actions: action.Physical{ttl, there}},
		datapath.Flow{Key: testKey(1, testFrame(4)), Actions: action.Physical{ttl, there, ttl, back}})
	if version > 3 { // earlier ones checked no lengths
		check := action.Action{Op: action.CheckLen, Value: 1000}
		fs = append(fs, datapath.Flow{Key: testKey(1, testFrame(5)), Actions: action.Physical{check, ttl, there}},
			datapath.Flow{Key: testKey(1, testFrame(6)), Actions: action.Physical{check, there, ttl, back}})
	}
	return fs
}

// leave makes what an agent with another layout leaves when it dies: maps, settings with a version, two ports, flows between them.
// The maps are written in their own layout, by the names of the fields.
func leave(t *testing.T, opts Options, object []byte, version uint32, in, out string) {
	t.Helper()
	opts, err := opts.withDefaults()
	must(t, err)
	must(t, makePinPath(opts.PinPath))
	lock, err := lockPinPath(opts)
	must(t, err)
	defer lock.Close()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	must(t, err)
	setSlots(spec, 64)
	must(t, spec.Variables[bpfVarSlotMask].Set(uint32(63)))
	for name, m := range spec.Maps {
		if name[0] != '.' {
			m.Pinning = ebpf.PinByName
		}
	}
	dir := mapDir(opts.PinPath, version)
	must(t, os.MkdirAll(dir, 0o700))
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}})
	must(t, err)
	defer c.Close()
	if dir != opts.PinPath {
		config, err := c.Maps[bpfMapConfig].Clone()
		must(t, err)
		defer config.Close()
		must(t, config.Pin(filepath.Join(opts.PinPath, bpfMapConfig)))
	}
	put := func(name string, key, value any) {
		t.Helper()
		m, ms := c.Maps[name], spec.Maps[name]
		must(t, m.Put(inLayout(t, ms.Key, key), inLayout(t, ms.Value, value)))
	}
	put(bpfMapConfig, uint32(0), bpfSettings{Version: bpfLayout(version), Workers: 1, Slots: 64, NextNo: 3})
	d := &Datapath{opts: opts} // attaches what it is given
	for i, name := range []string{in, out} {
		l, err := netlink.LinkByName(name)
		must(t, err)
		p := bpfPort{No: uint32(i + 1), Ifindex: uint32(l.Attrs().Index)}
		l2, err := d.attach(&p, ingress, c.Programs["viaduct_ingress"])
		must(t, err)
		if l2 != nil {
			defer l2.Close()
		}
		put(bpfMapPorts, p.No, p)
		put(bpfMapInterfaces, p.Ifindex, p.No)
	}
	next := uint32(5) // number of a group, or of a wide step
	for _, f := range leftFlows(version) {
		key := *(*bpfFlowKey)(unsafe.Pointer(&f.Key))
		var enc encoder
		must(t, enc.encode(&f.Key, f.Actions))
		if c.Maps["groups"] != nil {
			v := flow2{packets: 7, lastUsed: uint64(monotonic()) << timeShift, steps: uint16(len(enc.steps)), ttlCost: enc.ttlCost}
			if v.step = then(&enc.steps[0]); len(enc.steps) > 1 {
				v.group = next
				next++
				g := group2{steps: uint32(len(enc.steps))}
				for i := range enc.steps {
					g.step[i] = then(&enc.steps[i])
				}
				must(t, c.Maps["groups"].Put(v.group, raw(&g)))
			}
			must(t, c.Maps[bpfMapFlows].Put(raw(&key), raw(&v)))
			continue
		}
		v := bpfFlow{Packets: 7, LastUsed: monotonic(), Steps: uint8(len(enc.steps)), MaxLen: enc.maxLen}
		if len(enc.steps) > 1 {
			v.Step.Flags, v.Step.DecTtl, v.Step.Addr[0] = stepWide, enc.ttlCost, next
			for i := range enc.steps {
				put(bpfMapWideSteps, uint64(next), enc.steps[i])
				next++
			}
		} else if !compact(&f.Key, &enc.steps[0], &v.Step) {
			t.Fatal("a wide step")
		}
		if bytes.Equal(object, layout3) {
			v := flowThen(&v)
			must(t, c.Maps[bpfMapFlows].Put(raw(&key), raw(&v)))
			continue
		}
		put(bpfMapFlows, key, v)
	}
	put(bpfMapTunnelKeys, uint32(77), uint32(2))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inLayout is a value of this layout's Go type as another layout has it.
func inLayout(t *testing.T, want btf.Type, v any) []byte {
	t.Helper()
	b := bytesOf(t, v)
	n, err := btf.Sizeof(want)
	must(t, err)
	s, ok := btf.UnderlyingType(want).(*btf.Struct)
	if !ok {
		return b
	}
	ours, err := loadBpf()
	must(t, err)
	var have *btf.Struct
	for _, m := range ours.Maps {
		for _, x := range []btf.Type{m.Key, m.Value} {
			if x, ok := x.(*btf.Struct); ok && x.Name == s.Name {
				have = x
			}
		}
	}
	ms, err := movesBetween(s, have)
	must(t, err)
	out := make([]byte, n)
	ms.apply(out, b)
	return out
}

func raw[T any](v *T) []byte {
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)))
}

func bytesOf(t *testing.T, v any) []byte {
	t.Helper()
	switch v := v.(type) {
	case uint32:
		return raw(&v)
	case uint64:
		return raw(&v)
	case bpfSettings:
		return raw(&v)
	case bpfPort:
		return raw(&v)
	case bpfFlow:
		return raw(&v)
	case bpfFlowKey:
		return raw(&v)
	case bpfWideStep:
		return raw(&v)
	}
	t.Fatalf("%T", v)
	return nil
}

// then is a step as layouts 1 and 2 had it.
func then(w *bpfWideStep) step2 {
	s := &w.Step
	return step2{flags: s.Flags, decTTL: s.DecTtl, tos: s.Tos, port: s.Port, tunKey: s.TunKey, vlan: uint16(w.Vlan), srcPort: s.SrcPort, dstPort: s.DstPort,
		ethDst: s.EthDst, ethSrc: s.EthSrc, src: w.Src, dst: w.Dst, peer: w.Peer, order: uint64(w.Order)<<32 | uint64(s.Order)}
}

// flowThen is a flow as layout 3 had it.
func flowThen(f *bpfFlow) flow3 {
	s := &f.Step
	v := flow3{packets: f.Packets, lastUsed: f.LastUsed, steps: f.Steps, ttlCost: s.DecTtl, step: step3{flags: s.Flags, decTTL: s.DecTtl, tos: s.Tos,
		port: s.Port, tunKey: s.TunKey, srcPort: s.SrcPort, dstPort: s.DstPort, ethDst: s.EthDst, ethSrc: s.EthSrc, order: s.Order, addr: s.Addr}}
	if s.Flags == stepWide {
		v.wide, v.step = 1, step3{addr: s.Addr}
	}
	return v
}

// stream sends frames of one flow until it is stopped, and returns how many it has sent.
func stream(t *testing.T, r *rig, in string) (stop func() int) {
	var end atomic.Bool
	sent := make(chan int, 1)
	go func() {
		n := 0
		for ; !end.Load() && n < 40000; n++ {
			if _, err := r.wires[in].Write(testFrame(1)); err != nil {
				t.Error(err)
			}
			if n%16 == 0 {
				time.Sleep(time.Millisecond) // not more than the receiver's buffer holds
			}
		}
		sent <- n
	}()
	stop = sync.OnceValue(func() int { end.Store(true); return <-sent })
	t.Cleanup(func() { stop() })
	return stop
}

// arrived wants as many frames.
func arrived(t *testing.T, r *rig, out string, n int) {
	t.Helper()
	got := 0
	for ; got < n; got++ {
		if _, ok := r.Recv(t, out, time.Second); !ok {
			break
		}
	}
	if got != n {
		t.Errorf("%d of %d frames arrived", got, n)
	}
}

// pins lists what is pinned, without links.
func pins(t *testing.T, opts Options) (names []string) {
	t.Helper()
	opts, err := opts.withDefaults()
	must(t, err)
	must(t, filepath.WalkDir(opts.PinPath, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.HasPrefix(e.Name(), linkPrefix) {
			names = append(names, strings.TrimPrefix(path, opts.PinPath+"/"))
		}
		return err
	}))
	return names
}

// nothingElse wants this layout's pins and no others.
func nothingElse(t *testing.T, opts Options) {
	t.Helper()
	for _, name := range pins(t, opts) {
		if name != bpfMapConfig && !strings.HasPrefix(name, fmt.Sprintf("layout%d/", layoutVersion)) {
			t.Errorf("%s is left", name)
		}
	}
}

// layouts runs fn for earlier layouts ("groups", "bytes") and for one to come ("next"), as an agent of it would leave them, or for only one of them.
func layouts(t *testing.T, only string, fn func(t *testing.T, opts Options, object []byte, version uint32)) {
	for _, x := range []struct {
		name    string
		object  []byte
		version uint32
	}{{"groups", layout2, 2}, {"bytes", layout3, 3}, {"next", layoutOther, 5}} {
		for _, clsact := range []bool{false, true} {
			if clsact && (x.version != 2 || testing.Short()) { // the layout makes no difference to it; kernels that have it alone take it anyway
				continue
			}
			if only != "" && only != x.name || only == "" && testing.Short() && x.version != 3 { // opening takes long in an emulated guest
				continue
			}
			t.Run(fmt.Sprintf("%s,clsact=%v", x.name, clsact), func(t *testing.T) {
				if known := convertible; !slices.Contains(known, x.version) { // as it will be to the agent after it
					convertible = append(slices.Clone(known), x.version)
					t.Cleanup(func() { convertible = known })
				}
				opts := testOptions(t)
				opts.clsact = clsact
				t.Cleanup(func() {
					if err := Cleanup(opts); err != nil {
						t.Error(err)
					}
				})
				fn(t, opts, x.object, x.version)
			})
		}
	}
}

// An upgrade that changes the layout of the maps loses no packet, no flow, no counter and no port.
func TestMigrate(t *testing.T) {
	layouts(t, "", func(t *testing.T, opts Options, object []byte, version uint32) {
		r := newRig(t)
		in, out := r.NewPort(t), r.NewPort(t)
		leave(t, opts, object, version, in, out)
		stop := stream(t, r, in)
		for range 2 { // the second finds this layout
			d, err := Open(opts)
			must(t, err)
			checkFlows(t, d, leftFlows(version))
			must(t, d.DumpFlows(func(f *datapath.FlowInfo) bool {
				if f.Packets < 7 || f.Foreign {
					t.Errorf("%+v", f)
				}
				return true
			}))
			if keys, err := d.TunnelKeys(); err != nil || keys[77] != 2 {
				t.Errorf("tunnel keys %v, %v", keys, err)
			}
			if ps, err := d.Ports(); err != nil || len(ps) != 2 || ps[0].Interface != in || ps[1].Interface != out {
				t.Errorf("ports %+v, %v", ps, err)
			}
			must(t, d.Close())
			nothingElse(t, opts)
		}
		arrived(t, r, out, stop())
		if n := attached(t, in); n != 1 {
			t.Errorf("%d programs attached", n)
		}
	})
}

// Wherever a migration ends, everything works, the next one brings it to its end, and a clean-up leaves nothing.
func TestMigrateInterrupted(t *testing.T) {
	errHere := errors.New("here")
	layouts(t, "", func(t *testing.T, opts Options, object []byte, version uint32) {
		steps := []string{"filled", "attached", "named"}
		if testing.Short() {
			steps = steps[1:2]
		}
		for _, step := range steps {
			for _, clean := range []bool{false, true} {
				if clean && step != "attached" { // when there are both layouts' maps, and their attachments
					continue
				}
				r := newRig(t)
				in, out := r.NewPort(t), r.NewPort(t)
				leave(t, opts, object, version, in, out)
				stop := stream(t, r, in)
				broken := opts
				broken.interrupt = func(s string) error {
					if s == step {
						return errHere
					}
					return nil
				}
				for range 2 {
					d, err := Open(broken)
					if err == nil && step == "named" { // the first has come so far that nothing was left to be migrated
						must(t, d.Close())
					} else if !errors.Is(err, errHere) {
						t.Fatalf("not interrupted: %v", err)
					}
				}
				if !clean {
					d, err := Open(opts)
					must(t, err)
					checkFlows(t, d, leftFlows(version))
					must(t, d.Close())
					nothingElse(t, opts)
				}
				arrived(t, r, out, stop())
				must(t, Cleanup(opts))
				if n := attached(t, in); n != 0 {
					t.Errorf("%s: %d programs are left", step, n)
				}
				full, err := opts.withDefaults()
				must(t, err)
				if _, err := os.Stat(full.PinPath); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s: pins are left: %v", step, err)
				}
			}
		}
	})
}

// Maps of a layout that nobody knows, of a newer agent perhaps, go on switching until there are flows in this one's.
func TestTakeOverUnknownLayout(t *testing.T) {
	layouts(t, "next", func(t *testing.T, opts Options, object []byte, was uint32) { // the other form is of two layouts, both known
		const version = 1000
		r := newRig(t)
		in, out := r.NewPort(t), r.NewPort(t)
		leave(t, opts, object, version, in, out)
		stop := stream(t, r, in)
		for _, finish := range []bool{false, true} { // the first does not come to its end
			d, err := Open(opts)
			must(t, err)
			if v, anew, warnings := d.Predecessor(); v != version || !anew || warnings != nil {
				t.Errorf("predecessor: %d, %v, %v", v, anew, warnings)
			}
			n := 0
			must(t, d.DumpFlows(func(f *datapath.FlowInfo) bool {
				if n++; !f.Foreign || f.Packets < 7 {
					t.Errorf("%+v", f)
				}
				return true
			}))
			if n != len(leftFlows(version)) || entries(t, d.maps.Flows) != 0 {
				t.Errorf("%d flows of the predecessor, %d of its own", n, entries(t, d.maps.Flows))
			}
			if p, err := d.AddPort(out, datapath.VM); err != nil || p.No != 2 {
				t.Errorf("%+v, %v", p, err)
			}
			_, err = d.PutFlows(agentFlows(1, 2))
			must(t, err)
			if finish {
				must(t, d.TakeOver())
				checkFlows(t, d, agentFlows(1, 2))
			}
			must(t, d.Close())
		}
		nothingElse(t, opts)
		arrived(t, r, out, stop())
	})
}

// What cannot be read at all is left alone, and the error says what to do.
func TestUnreadableLayout(t *testing.T) {
	opts := testOptions(t)
	full, err := opts.withDefaults()
	must(t, err)
	must(t, makePinPath(full.PinPath))
	t.Cleanup(func() { must(t, Cleanup(opts)) })
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	must(t, err)
	defer m.Close()
	must(t, m.Put(uint32(0), []byte{99, 0, 0, 0, 0, 0, 0, 0}))
	must(t, m.Pin(filepath.Join(full.PinPath, bpfMapConfig)))
	_, err = Open(opts)
	for _, want := range []string{"a newer agent", "layout 99", "viaduct agent --cleanup --name " + full.Name} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if got := pins(t, opts); len(got) != 1 {
		t.Errorf("pins %v", got)
	}
}
