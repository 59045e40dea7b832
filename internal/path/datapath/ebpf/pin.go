package ebpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

const bpffs = "/sys/fs/bpf"

// makePinPath makes the directory, in a bpffs that is mounted when it is not.
func makePinPath(path string) error {
	if strings.HasPrefix(path, bpffs+"/") && !isBPFFS(bpffs) {
		if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil && !isBPFFS(bpffs) {
			return fmt.Errorf("mount %s: %w; the datapath lives in a bpffs: mount -t bpf bpf %s", bpffs, err, bpffs)
		}
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	if !isBPFFS(path) {
		return fmt.Errorf("%s is not in a bpffs, where pins have to be: choose a path under %s, or mount -t bpf bpf %s", path, bpffs, filepath.Dir(path))
	}
	return nil
}

func isBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.BPF_FS_MAGIC
}

// lockPinPath makes sure that one process at a time has the datapath. What is locked is the pin directory itself, so
// that it holds whatever else two processes are told. The lock goes with its process.
func lockPinPath(o Options) (*os.File, error) {
	f, err := os.Open(o.PinPath)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: another process, a second agent perhaps, has %s", datapath.ErrBusy, o.PinPath)
		}
		return nil, fmt.Errorf("lock %s: %w", o.PinPath, err)
	}
	mine, err := f.Stat()
	now, err2 := os.Stat(o.PinPath)
	if err = errors.Join(err, err2); err != nil || !os.SameFile(mine, now) {
		f.Close() // a cleanup has removed it in between
		return nil, errors.Join(fmt.Errorf("%w: %s is being cleaned up", datapath.ErrBusy, o.PinPath), err)
	}
	return f, nil
}

// removePins removes every pin in the directory and below, and detaches the links.
func removePins(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		pin := filepath.Join(path, e.Name())
		if e.IsDir() {
			err = errors.Join(err, removePins(pin), os.Remove(pin))
			continue
		}
		if strings.HasPrefix(e.Name(), linkPrefix) {
			if l, linkErr := link.LoadPinnedLink(pin, nil); linkErr != nil {
				err = errors.Join(err, fmt.Errorf("pinned link %s: %w", pin, linkErr))
			} else {
				err = errors.Join(err, detachLink(l))
			}
		}
		err = errors.Join(err, os.Remove(pin))
	}
	return err
}

// Cleanup removes a datapath that nobody has open: links, filters, qdiscs, pins. Nothing of it
// is left, and it is no error when there was nothing.
func Cleanup(opts Options) error {
	opts, err := opts.withDefaults()
	if err != nil {
		return err
	}
	if _, err := os.Stat(opts.PinPath); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := lockPinPath(opts)
	if err != nil {
		return err
	}
	defer lock.Close()
	err = errors.Join(detachFilters(opts.PinPath), removePins(opts.PinPath))
	err = errors.Join(err, os.Remove(opts.PinPath))
	if parent := filepath.Dir(opts.PinPath); parent != bpffs && isBPFFS(filepath.Dir(parent)) {
		_ = os.Remove(parent) // when it was the last datapath
	}
	return err
}

// detachFilters undoes what is attached with clsact: unlike links, it does not go with its pin. An Open that did not come to its end may
// have left ports of two layouts, of the same interfaces.
func detachFilters(pinPath string) error {
	spec, err := loadBpf()
	if err != nil {
		return err
	}
	dirs := []string{pinPath}
	entries, failed := os.ReadDir(pinPath)
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(pinPath, e.Name()))
		}
	}
	for _, dir := range dirs {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpfMapPorts), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		defer m.Close()
		r, err := newReader(m, spec.Maps[bpfMapPorts])
		if err != nil {
			return fmt.Errorf("%w; what is attached with tc stays: tc filter del dev DEVICE ingress", err)
		}
		for slot := range m.MaxEntries() {
			b, err := r.lookup(slot)
			if err != nil {
				return err
			}
			p := (*bpfPort)(unsafe.Pointer(unsafe.SliceData(b)))
			if p.No != 0 && p.Flags&portTC != 0 {
				failed = errors.Join(failed, detachTC(p))
			}
		}
	}
	return failed
}

// ErrKernel is Open's error on a kernel that this datapath cannot run on.
var ErrKernel = errors.New("the eBPF datapath needs kernel 6.1 or later")

// Exists reports whether a datapath of that name is pinned.
func Exists(opts Options) bool {
	opts, err := opts.withDefaults()
	if err != nil {
		return false
	}
	m, version, err := pinnedConfig(opts)
	m.Close()
	return version != 0 || err != nil
}
