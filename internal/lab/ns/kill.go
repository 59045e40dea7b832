package ns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Processes lists the ids of all processes whose main thread is in the namespace,
// whoever started them. A namespace that does not exist has none.
func (s Space) Processes() ([]int, error) {
	var want, got unix.Stat_t
	if err := unix.Stat(s.Path(), &want); errors.Is(err, unix.ENOENT) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", s, err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || unix.Stat(d+"/ns/net", &got) != nil {
			continue // gone since, or a zombie
		}
		if got.Ino == want.Ino && got.Dev == want.Dev {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Kill ends every process in the namespace other than the caller, so that Delete frees
// it, and waits until they are gone. Asking for the namespace's processes needs no record
// of what was started: it also finds what a crashed `lab up` or a user left behind.
func (s Space) Kill(timeout time.Duration) error {
	for deadline := time.Now().Add(timeout); ; {
		pids, err := s.Processes()
		if err != nil {
			return err
		}
		left := 0
		for _, pid := range pids {
			if pid == os.Getpid() {
				continue
			}
			left++
			if err := End(pid, time.Until(deadline)); err != nil {
				return fmt.Errorf("network namespace %s: %w", s, err)
			}
		}
		if left == 0 { // what forked meanwhile was found by another turn
			return nil
		}
	}
}

// End kills one process and waits until it has ended; one that does not exist has. The process descriptor makes sure that
// it is not another one which was given the same id meanwhile.
func End(pid int, timeout time.Duration) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return waitExit(fd, pid, timeout)
}

// waitExit waits until the process behind a process descriptor has ended.
func waitExit(fd, pid int, timeout time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	deadline := time.Now().Add(timeout)
	for {
		n, err := unix.Poll(fds, max(0, int(time.Until(deadline).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("process %d did not end within %v", pid, timeout)
		default:
			return nil
		}
	}
}
