package ovs

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sendBuffer = 1 << 20 // a batch must fit
	recvBuffer = 4 << 20 // so must its error messages
	recvSize   = 64 << 10
)

// conn is a netlink socket of one user at a time. The kernel works on requests while they are being sent, so
// what it has to say about them is there when send returns. The functions are replaced to inject faults.
type conn struct {
	fd   int
	seq  uint32
	msg  message
	buf  []byte
	send func(fd int, b []byte) error
	recv func(fd int, b []byte, flags int) (int, error)
}

func newConn() (*conn, error) {
	fd, err := netlinkSocket(0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, recvBuffer),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return &conn{fd: fd, buf: make([]byte, recvSize), send: sendAll, recv: recvFrom}, nil
}

func (c *conn) close() { unix.Close(c.fd) }

// netlinkSocket opens a generic netlink socket with a port id; 0: any.
func netlinkSocket(pid uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return -1, fmt.Errorf("netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: pid}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("netlink port id %#x: %w", pid, err)
	}
	return fd, nil
}

var kernel = &unix.SockaddrNetlink{Family: unix.AF_NETLINK}

func sendAll(fd int, b []byte) error { return unix.Sendto(fd, b, 0, kernel) }

// recvFrom is recvfrom(2) without the address, which would be allocated.
func recvFrom(fd int, b []byte, flags int) (int, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), uintptr(flags), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
}

// request begins a message of the batch; its number is returned by flush when it fails.
func (c *conn) request(family uint16, cmd uint8, flags uint16, dp uint32) (at int) {
	c.seq++
	return c.msg.begin(family, cmd, flags, c.seq, dp)
}

// flush sends the batch, whose first message has number first, and calls failed for each one
// that the kernel refused. An error of flush itself leaves open which were carried out.
func (c *conn) flush(failed func(seq uint32, err error)) error {
	b := c.msg.b
	c.msg.b = b[:0]
	if len(b) == 0 {
		return nil
	}
	if err := c.send(c.fd, b); err != nil {
		return fmt.Errorf("netlink: send: %w", err)
	}
	for {
		n, err := c.recv(c.fd, c.buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("netlink: receive: %w", err)
		}
		for b := c.buf[:n]; len(b) > 0; {
			var r reply
			if r, b, err = split(b); err != nil {
				return err
			}
			if r.typ != unix.NLMSG_ERROR {
				continue
			}
			if err := r.errno(); err != nil {
				failed(r.seq, err)
			}
		}
	}
}

// call sends the one request that was begun at, and hands the replies to fn, which may be nil, until
// the kernel has acknowledged it.
func (c *conn) call(at int, fn func(r *reply) error) error {
	_, err := c.converse(at, fn)
	return err
}

// dump is call for a request with NLM_F_DUMP. interrupted: the kernel's table changed its
// shape meanwhile, and entries may be missing.
func (c *conn) dump(at int, fn func(r *reply) error) (interrupted bool, err error) {
	return c.converse(at, fn)
}

func (c *conn) converse(at int, fn func(r *reply) error) (interrupted bool, err error) {
	c.msg.end(at)
	b := c.msg.b
	seq := ne.Uint32(b[at+8:])
	c.msg.b = b[:0]
	if err := c.send(c.fd, b); err != nil {
		return false, fmt.Errorf("netlink: send: %w", err)
	}
	for {
		n, err := c.recv(c.fd, c.buf, 0)
		if err != nil {
			return false, fmt.Errorf("netlink: receive: %w", err)
		}
		for b := c.buf[:n]; len(b) > 0; {
			var r reply
			if r, b, err = split(b); err != nil {
				return false, err
			}
			if r.seq != seq {
				continue // of a call that was given up
			}
			interrupted = interrupted || r.flags&unix.NLM_F_DUMP_INTR != 0
			switch r.typ {
			case unix.NLMSG_DONE:
				return interrupted, r.errno()
			case unix.NLMSG_ERROR:
				return interrupted, r.errno()
			}
			if fn != nil {
				if err := fn(&r); err != nil {
					return interrupted, err
				}
			}
		}
	}
}
