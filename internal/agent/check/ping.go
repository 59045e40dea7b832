package check

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/topo/health"
)

// ping sends an echo request and waits for its reply (RFC 792, RFC 4443 section 4). The kernel's ping sockets compare the
// identifier, which stands for a source port: the router knows the reply by it.
func (s *Space) ping(ctx context.Context, to netip.Addr) error {
	conn, err := s.echoSocket(to)
	if err != nil {
		return plain(err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	request := make([]byte, packet.ICMPLen) // the kernel fills in checksum and identifier
	if request[0] = packet.ICMPEchoRequest; to.Is6() {
		request[0] = packet.ICMPv6EchoRequest
	}
	sequence := uint16(rand.Uint32())
	binary.BigEndian.PutUint16(request[6:], sequence)
	if _, err := conn.Write(request); err != nil {
		return plain(err)
	}
	for reply := make([]byte, packet.ICMPLen); ; {
		n, err := conn.Read(reply)
		switch {
		case errors.Is(err, syscall.EHOSTUNREACH):
			return errors.New("host unreachable")
		case err != nil:
			return plain(err)
		case n == len(reply) && binary.BigEndian.Uint16(reply[6:]) == sequence:
			return nil
		}
	}
}

// echoSocket makes one in the namespace, with an identifier that answers to checks have and no other socket.
func (s *Space) echoSocket(to netip.Addr) (conn net.Conn, err error) {
	fd := -1
	err = s.do(func() error {
		family, proto := unix.AF_INET, unix.IPPROTO_ICMP
		if to.Is6() {
			family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		}
		if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto); err != nil {
			return err
		}
		const ids = 65536 - health.PortLow
		for range ids {
			if err = unix.Bind(fd, socketAddr(ownAddr(to), health.PortLow+rand.IntN(ids))); !errors.Is(err, unix.EADDRINUSE) {
				break
			}
		}
		if err != nil {
			return err
		}
		return unix.Connect(fd, socketAddr(to, 0))
	})
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, os.NewSyscallError("ping socket", err)
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close()
	return net.FileConn(f)
}

func ownAddr(to netip.Addr) netip.Addr {
	if to.Is4() {
		return health.Source4
	}
	return health.Source6
}

func socketAddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: port, Addr: a.As16()}
}
