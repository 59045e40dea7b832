package ebpf

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// checkHost fails where the datapath cannot work: an old kernel, a process without the capabilities.
func checkHost() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("version of the kernel: %w", err)
	}
	if err := checkRelease(unix.ByteSliceToString(u.Release[:])); err != nil {
		return err
	}
	return checkPrivileges()
}

// checkRelease fails before Linux 6.1. A release that says no version is let through: loading will tell.
func checkRelease(release string) error {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n == 2 && (major < 6 || major == 6 && minor < 1) {
		return fmt.Errorf("the kernel is Linux %s, the eBPF datapath needs 6.1 or later: boot a newer kernel", release)
	}
	return nil
}

// capabilities are what the datapath needs of its process (capabilities(7)): programs and maps, interfaces
// and marks, packet sockets.
var capabilities = []struct {
	bit  uint
	name string
}{{unix.CAP_BPF, "CAP_BPF"}, {unix.CAP_PERFMON, "CAP_PERFMON"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}}

// checkPrivileges fails with os.ErrPermission when the process lacks a capability.
func checkPrivileges() error {
	var halves [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &halves[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	effective := uint64(halves[1].Effective)<<32 | uint64(halves[0].Effective)
	var missing []string
	for _, c := range capabilities {
		if effective&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("%w: the process lacks %s: run as root, or grant it these", os.ErrPermission, strings.Join(missing, ", "))
	}
	return nil
}
