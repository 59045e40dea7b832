package ebpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// What is pinned in PinPath, in every layout:
//
//	config       settings of the datapath; the version of the layout is in front
//	link_NO_DIR  links of ports
//	layoutN/     the other maps of layout N; those of layouts 1 and 2 are beside config
//
// An Open that finds another layout makes its own maps beside the earlier ones and fills them, while the earlier agent's programs go on
// switching by theirs; then it puts its programs in the place of those, port by port, and last of all its config in the place of the earlier one.
// Whenever it ends before, the next Open, of whatever version, finds the earlier datapath whole and begins again.

const (
	layoutVersion = uint32(bpfLayoutLAYOUT_VERSION)
	layoutPrefix  = "layout"
	configNew     = "config_new" // until it is config
)

// mapDir is where the maps of a layout are pinned.
func mapDir(pinPath string, version uint32) string {
	if version <= 2 {
		return pinPath
	}
	return filepath.Join(pinPath, fmt.Sprintf("%s%d", layoutPrefix, version))
}

// predecessor is an earlier datapath with another layout.
type predecessor struct {
	version  uint32
	dir      string
	settings bpfSettings // in this layout
	known    bool        // convertible
	warnings []error     // what could not be taken over

	ports *reader
	// each tells of the flows: of a layout that is not known, what it takes for them. nil when they cannot be read.
	each  func(fn func(*datapath.FlowInfo) bool) error
	flows int // how many there may be
	maps  []*ebpf.Map
}

func (p *predecessor) close() {
	for _, m := range p.maps {
		m.Close()
	}
	p.maps, p.each = nil, nil
}

// open opens one of the predecessor's maps; os.ErrNotExist when it had none of that name.
func (p *predecessor) open(name string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(p.dir, name), nil)
	if err != nil {
		return nil, fmt.Errorf("pinned map %s: %w", name, err)
	}
	p.maps = append(p.maps, m)
	return m, nil
}

// reader opens one to be read by the names of fields.
func (p *predecessor) reader(spec *ebpf.MapSpec) (*reader, error) {
	m, err := p.open(spec.Name)
	if err != nil {
		return nil, err
	}
	return newReader(m, spec)
}

// openFlows has each read them as their layout is.
func (p *predecessor) openFlows(spec *ebpf.CollectionSpec) (err error) {
	flows, err := p.open(bpfMapFlows)
	if err != nil {
		return err
	}
	p.flows = int(flows.MaxEntries())
	if p.version == 1 || p.version == 2 {
		groups, err := p.open("groups")
		p.each = func(fn func(*datapath.FlowInfo) bool) error { return eachFlow2(flows, groups, fn) }
		return err
	}
	steps, err := p.reader(spec.Maps[bpfMapWideSteps])
	if err != nil {
		return err
	}
	if p.version == 3 {
		p.each = func(fn func(*datapath.FlowInfo) bool) error { return eachFlow3(flows, steps, fn) }
		return nil
	}
	fs, err := newReader(flows, spec.Maps[bpfMapFlows])
	p.each = func(fn func(*datapath.FlowInfo) bool) error { return eachByName(fs, steps, fn) }
	return err
}

// errLayout says what to do with pins that this agent can do nothing with.
func errLayout(o Options, version uint32, why error) error {
	age := "an earlier"
	if version > layoutVersion {
		age = "a newer"
	}
	return fmt.Errorf("%s agent has left maps of layout %d in %s, and this one, of layout %d, cannot take them over: %w; "+
		"they go on forwarding: start the version that has made them again, or remove them, which interrupts traffic: viaduct agent --cleanup --name %s",
		age, version, o.PinPath, layoutVersion, why, o.Name)
}

// newPredecessor reads what must be known before maps are made.
func newPredecessor(o Options, config *ebpf.Map, version uint32, spec *ebpf.CollectionSpec) (_ *predecessor, err error) {
	p := &predecessor{version: version, dir: mapDir(o.PinPath, version), known: slices.Contains(convertible, version)}
	defer func() {
		if err != nil {
			p.close()
			err = errLayout(o, version, err)
		}
	}()
	r, err := newReader(config, spec.Maps[bpfMapConfig])
	if err != nil {
		return nil, err
	}
	b, err := r.lookup(uint32(0))
	if err != nil {
		return nil, err
	}
	p.settings = *(*bpfSettings)(unsafe.Pointer(unsafe.SliceData(b)))
	if n := p.settings.Slots; n < 2 || n&(n-1) != 0 {
		return nil, fmt.Errorf("settings with %d slots", n)
	}
	if p.ports, err = p.reader(spec.Maps[bpfMapPorts]); err != nil {
		return nil, err
	}
	if err := p.openFlows(spec); err != nil {
		if p.each = nil; p.known {
			return nil, err
		}
		p.warnings = append(p.warnings, err)
	}
	ms := spec.Maps[bpfMapFlows]
	ms.MaxEntries = max(ms.MaxEntries, uint32(p.flows))
	return p, nil
}

// fill converts what the predecessor had into d's maps. Of a layout that is not known these are the ports alone.
func (p *predecessor) fill(d *Datapath) error {
	spec, err := loadBpf()
	if err != nil {
		return err
	}
	failed := func(name string, err error) error {
		return errLayout(d.opts, p.version, fmt.Errorf("map %s: %w", name, err))
	}
	if err := p.ports.copyTo(d.maps.Ports); err != nil {
		return failed(bpfMapPorts, err)
	}
	if !p.known {
		return nil
	}
	for _, x := range []struct {
		name string
		dst  *ebpf.Map
	}{
		{bpfMapStats, d.maps.Stats}, {bpfMapRates, d.maps.Rates}, {bpfMapTunnelKeys, d.maps.TunnelKeys},
	} {
		r, err := p.reader(spec.Maps[x.name])
		if errors.Is(err, os.ErrNotExist) { // it had none of these yet
			continue
		}
		if err == nil {
			err = r.copyTo(x.dst)
		}
		if err != nil {
			return failed(x.name, err)
		}
	}
	if err := d.table.restore(p.each); err != nil {
		return failed(bpfMapFlows, err)
	}
	return nil
}

// handOver takes the tokens that are left in the predecessor's cells, and the misses that are on its rings, once its programs are gone.
func (p *predecessor) handOver(d *Datapath) error {
	rings, err := p.open(bpfMapRings)
	if err != nil {
		return err
	}
	old, err := openRings(rings)
	if err != nil {
		return err
	}
	for i := range old { // this waits until no program has it any more
		if err := rings.Delete(uint32(i)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return errors.Join(err, closeAll(old))
		}
	}
	if err := d.drain(old); err != nil {
		return err
	}
	credits, err := p.open(bpfMapCredits)
	if err != nil {
		return err
	}
	for slot := range d.credits {
		var n int64
		if err := credits.Lookup(uint32(slot), &n); err != nil {
			return err
		}
		if n > 0 {
			atomic.AddInt64(&d.credits[slot], n)
		}
	}
	return nil
}

// dumpBefore is DumpFlows while the predecessor's flows are those that count: what they do is a hint, since nobody knows whether it is what
// the names say.
func (d *Datapath) dumpBefore(fn func(*datapath.FlowInfo) bool) (done bool, err error) {
	d.heirMu.RLock()
	defer d.heirMu.RUnlock()
	if !d.beside || d.before.each == nil {
		return d.beside, nil
	}
	return true, d.before.each(func(info *datapath.FlowInfo) bool {
		info.Foreign = true
		return fn(info)
	})
}

// Predecessor tells of the earlier datapath that Open has found with another layout: its version, whether its flows are
// simulated anew, and what of it could not be read. Version 0: there was none.
func (d *Datapath) Predecessor() (version uint32, anew bool, warnings []error) {
	if p := d.before; p != nil {
		return p.version, !p.known, p.warnings
	}
	return 0, false, nil
}

// TakeOver implements datapath.Heir.
func (d *Datapath) TakeOver() error {
	d.heirMu.Lock()
	defer d.heirMu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	if !d.beside {
		return nil
	}
	for _, p := range d.ports {
		p.close()
		if err := d.plug(p); err != nil {
			return fmt.Errorf("take over port %d (%s): %w", p.No, p.name, err)
		}
	}
	d.beside = false
	return d.commit()
}

// commit makes this datapath the one that the next Open finds, and removes the pins of others.
func (d *Datapath) commit() error {
	if d.before != nil {
		if err := d.interrupted("attached"); err != nil {
			return err
		}
		beside := filepath.Join(d.opts.PinPath, configNew)
		if err := ignoreNotExist(os.Remove(beside)); err != nil { // of an Open that did not come to its end
			return err
		}
		config, err := d.maps.Config.Clone()
		if err != nil {
			return err
		}
		defer config.Close()
		if err := config.Pin(beside); err != nil {
			return err
		}
		if err := os.Rename(beside, filepath.Join(d.opts.PinPath, bpfMapConfig)); err != nil {
			return err
		}
		if d.before.known {
			if err := d.before.handOver(d); err != nil {
				return fmt.Errorf("misses of an earlier agent: %w", err)
			}
		}
		d.before.close()
		if err := d.interrupted("named"); err != nil {
			return err
		}
	}
	return removeOtherLayouts(d.opts.PinPath, layoutVersion)
}

// removeOtherLayouts removes the maps of all layouts but one: they are those of a predecessor, or of an Open that did not come to its end.
func removeOtherLayouts(pinPath string, version uint32) error {
	entries, err := os.ReadDir(pinPath)
	if err != nil {
		return err
	}
	keep := mapDir(pinPath, version)
	for _, e := range entries {
		pin := filepath.Join(pinPath, e.Name())
		switch {
		case pin == keep, e.Name() == bpfMapConfig, strings.HasPrefix(e.Name(), linkPrefix):
		case e.IsDir():
			err = errors.Join(err, removeAll(pin))
		case keep != pinPath, e.Name() == configNew:
			err = errors.Join(err, os.Remove(pin))
		}
	}
	return err
}

// removeAll removes a directory of pins; there need not be one.
func removeAll(dir string) error {
	if err := removePins(dir); err != nil {
		return err
	}
	return ignoreNotExist(os.Remove(dir))
}

// freshDir makes room for this layout's maps beside those of a predecessor.
func freshDir(pinPath string) error {
	dir := mapDir(pinPath, layoutVersion)
	if dir != pinPath {
		if err := removeAll(dir); err != nil {
			return err
		}
		return os.MkdirAll(dir, 0o700)
	}
	entries, err := os.ReadDir(pinPath)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() && e.Name() != bpfMapConfig && !strings.HasPrefix(e.Name(), linkPrefix) {
			err = errors.Join(err, os.Remove(filepath.Join(pinPath, e.Name())))
		}
	}
	return err
}

func (d *Datapath) interrupted(step string) error {
	if d.opts.interrupt == nil {
		return nil
	}
	return d.opts.interrupt(step)
}
