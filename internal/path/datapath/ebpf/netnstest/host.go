package netnstest

import (
	"net"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Address gives an interface of the namespace addresses (in prefix notation) of the kernel's own stack.
func (n *Namespace) Address(t testing.TB, iface string, prefixes ...string) (mac net.HardwareAddr) {
	t.Helper()
	n.Do(t, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+iface+"/disable_ipv6", []byte("0"), 0o644); err != nil {
			return err
		}
		l, err := netlink.LinkByName(iface)
		if err != nil {
			return err
		}
		mac = l.Attrs().HardwareAddr
		for _, p := range prefixes {
			a, err := netlink.ParseAddr(p)
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
		}
		return nil
	})
	return mac
}

// Neighbour makes an address known behind an interface of the namespace.
func (n *Namespace) Neighbour(t testing.TB, iface, ip string, mac net.HardwareAddr) {
	t.Helper()
	n.Do(t, func() error {
		l, err := netlink.LinkByName(iface)
		if err != nil {
			return err
		}
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: net.ParseIP(ip), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
	})
}

// Listen opens a TCP listener in the namespace.
func (n *Namespace) Listen(t testing.TB, address string) (l net.Listener) {
	t.Helper()
	n.Do(t, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	t.Cleanup(func() { l.Close() })
	return l
}

// Dial opens a TCP connection from the namespace.
func (n *Namespace) Dial(t testing.TB, address string) (c net.Conn) {
	t.Helper()
	n.Do(t, func() (err error) {
		c, err = net.DialTimeout("tcp", address, 3*time.Second)
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// NoChecksumOffload makes the stack complete its checksums before frames leave iface. On a host's
// end of a pair, which has no stack, it completes those of frames that are passed through.
func NoChecksumOffload(iface string) error {
	// struct ethtool_value, struct ifreq
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_STXCSUM}
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(req.name[:], iface)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
