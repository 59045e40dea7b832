package traffic

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// epollPwait2 waits with a resolution of nanoseconds, where epoll_wait(2) would round the
// probe's interval to milliseconds.
func epollPwait2(epfd int, events []unix.EpollEvent, timeout *unix.Timespec) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(timeout)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
