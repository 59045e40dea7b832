package plug

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// maxFrame is a GSO packet of 64 KB with its Ethernet and virtio-net headers.
const maxFrame = 1<<16 + 64

// Tap makes tap device ifname in host and nic, a tap too, in vm, and configures nic.
// They are joined by whoever runs Relay, as a hypervisor would.
func Tap(host ns.Space, ifname string, vm ns.Space, nic NIC) error {
	for _, end := range []struct {
		space ns.Space
		name  string
	}{{host, ifname}, {vm, nic.Name}} {
		fd, err := openTap(end.space, end.name)
		if err != nil {
			return err
		}
		err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("tap %s: %w", end.name, err)
		}
	}
	h, err := host.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(ifname)
	if err != nil {
		return fmt.Errorf("interface %s: %w", ifname, err)
	}
	if err := h.LinkSetMTU(link, mtu(nic)); err != nil {
		return fmt.Errorf("interface %s: MTU %d: %w", ifname, mtu(nic), err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	return Configure(vm, nic)
}

// Relay carries frames both ways between the two taps that Tap made, with their virtio-net
// headers, so that segmentation and checksum offloads pass as they would from a guest.
// It returns when ctx ends or a tap is gone.
func Relay(ctx context.Context, host ns.Space, ifname string, vm ns.Space, nic string) error {
	a, err := attach(host, ifname)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := attach(vm, nic)
	if err != nil {
		return err
	}
	defer b.Close()
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	failed := make(chan error, 2)
	go func() { failed <- carry(a, b) }()
	go func() { failed <- carry(b, a) }()
	err = <-failed
	a.Close()
	b.Close()
	<-failed
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func carry(from, to *os.File) error {
	buf := make([]byte, maxFrame)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		_, err = to.Write(buf[:n])
		// A device that is down, or a frame that it does not take, loses a frame, as a NIC would.
		if err != nil && !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
}

func attach(s ns.Space, name string) (*os.File, error) {
	fd, err := openTap(s, name)
	if err != nil {
		return nil, err
	}
	const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("tap %s: offloads: %w", name, err)
	}
	// Only a descriptor that is attached may be polled: the file comes last.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openTap attaches to tap name in the namespace, and makes it when it does not exist.
func openTap(s ns.Space, name string) (fd int, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, fmt.Errorf("tap %q: %w", name, err)
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	err = s.Do(func() error { // the device belongs to where /dev/net/tun was opened
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("/dev/net/tun: %w", err)
		}
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			unix.Close(fd)
			return fmt.Errorf("tap %s: %w", name, err)
		}
		return nil
	})
	return fd, err
}
