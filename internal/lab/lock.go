package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockPatience is for how long who changes a laboratory waits for who is at it. It is longer than holdAtMost, for which, but for `up`, anybody is.
var lockPatience = 30 * time.Second

const holdAtMost = 20 * time.Second

// change has do change the laboratory while nobody else does: it finds what others have made of it, and saves what it makes of it itself.
// What takes long, as the start of a process does until it is ready, is waited for afterwards. Within another change it is a part of that.
func (l *Lab) change(ctx context.Context, do func() error) error {
	if l.held {
		return do()
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.refresh(); err != nil {
		return err
	}
	return do()
}

// lock holds off everybody else who changes the laboratory. The lock is on its directory: it goes with the process, and is not
// inherited by those that it starts. fs.ErrNotExist: there is no laboratory any more.
func (l *Lab) lock(ctx context.Context) (unlock func(), err error) {
	for deadline := time.Now().Add(lockPatience); ; {
		dir, err := os.Open(l.dir) // closed in whatever is executed
		if errors.Is(err, fs.ErrNotExist) {
			return nil, noLab(l.Name)
		}
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && stillAt(dir, l.dir) { // else the laboratory has gone meanwhile; there may be another one of its name
			l.held = true
			return func() {
				l.held = false
				_ = unix.Flock(int(dir.Fd()), unix.LOCK_UN) // also of a copy that a process being started has for a moment
				dir.Close()
			}, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
			if cause := ctx.Err(); cause != nil {
				err = fmt.Errorf("%s is changing it: %w", holder(dir), cause)
			} else if time.Now().After(deadline) {
				err = fmt.Errorf("%s has been changing it for more than %s: wait for that, or end it", holder(dir), lockPatience)
			}
		}
		dir.Close()
		if err != nil {
			return nil, fmt.Errorf("laboratory %s: %w", l.Name, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stillAt says that a path leads to the open file.
func stillAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// holder describes the process that has locked the file, as far as the kernel tells.
func holder(f *os.File) string {
	const unknown = "another process"
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return unknown
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return unknown
	}
	// 1: FLOCK  ADVISORY  WRITE 18777 00:27:255607 0 EOF
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		w := strings.Fields(line)
		if len(w) < 6 || w[1] != "FLOCK" || w[5] != file {
			continue
		}
		who := "process " + w[4]
		switch b, err := os.ReadFile("/proc/" + w[4] + "/cmdline"); {
		case err != nil:
			who = "a child of " + who + " (ended)"
		case len(b) > 0:
			who += fmt.Sprintf(" (%s)", bytes.ReplaceAll(bytes.TrimRight(b, "\x00"), []byte{0}, []byte{' '}))
		}
		return who
	}
	return unknown
}

// refresh learns what others have changed since the manifest was read: processes, faults, and where VMs are. The hosts and VMs
// stay the same values, to which callers have pointers.
func (l *Lab) refresh() error {
	now := Lab{dir: l.dir}
	if err := now.read(l.Name); err != nil {
		return err
	}
	if len(now.Hosts) != len(l.Hosts) || len(now.VMs) != len(l.VMs) { // it was opened before it was written down
		l.Manifest = now.Manifest
		return nil
	}
	l.Faults, l.Server.PID = now.Faults, now.Server.PID
	for i := range l.Hosts {
		l.Hosts[i].PID = now.Hosts[i].PID
	}
	copy(l.VMs, now.VMs)
	return nil
}
