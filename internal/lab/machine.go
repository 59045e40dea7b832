package lab

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockMachine holds off other laboratories of this machine while something is checked or changed that
// they share. The lock is on a directory that is always there, and goes with its process.
func lockMachine() (unlock func(), err error) {
	dir, err := os.Open("/run")
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	return func() { dir.Close() }, nil
}

const bpffs = "/sys/fs/bpf"

func bpffsMounted() (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err != nil {
		return false, fmt.Errorf("%s: %w", bpffs, err)
	}
	return st.Type == unix.BPF_FS_MAGIC, nil
}

func mountBPFFS() error {
	if err := unix.Mount("bpf", bpffs, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount %s: %w", bpffs, err)
	}
	return nil
}

// unmountBPFFS unmounts bpffs if nothing is pinned there any more.
func unmountBPFFS() error {
	if mounted, err := bpffsMounted(); err != nil || !mounted {
		return err
	}
	entries, err := os.ReadDir(bpffs)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "maps.debug" && e.Name() != "progs.debug" { // the kernel's own, in every bpffs
			return nil
		}
	}
	err = unix.Unmount(bpffs, 0)
	if err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount %s: %w", bpffs, err)
	}
	return nil
}
