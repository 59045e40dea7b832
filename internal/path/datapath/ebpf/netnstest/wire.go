package netnstest

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Wire is a packet socket on an interface: it sends and sees frames as they are on the wire.
type Wire struct{ fd, ifindex int }

// Wire opens a packet socket on an interface of the namespace.
func (n *Namespace) Wire(t testing.TB, iface string) *Wire {
	t.Helper()
	w := &Wire{}
	n.Do(t, func() (err error) {
		all := int(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)))
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		w.ifindex = ifi.Index
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(w.fd) })
		if err = unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
			return err
		}
		if err = unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		if err = unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: w.ifindex})
	})
	return w
}

// Send sends one frame.
func (w *Wire) Send(t testing.TB, frame []byte) {
	t.Helper()
	if _, err := w.Write(frame); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// Write is Send for other goroutines than the test's. It waits while frames that were sent before fill the socket's buffer: a busy machine may
// take a while to process them.
func (w *Wire) Write(frame []byte) (int, error) {
	for {
		err := unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.ifindex})
		if err != unix.EAGAIN {
			return len(frame), err
		}
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLOUT}}, 10_000); n == 0 {
			return 0, err
		}
	}
}

// Recv returns the next frame, with its VLAN tag, or false after timeout.
func (w *Wire) Recv(t testing.TB, timeout time.Duration) ([]byte, bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); ; {
		buf, oob := make([]byte, 1<<17), make([]byte, 256)
		n, oobn, _, _, err := unix.Recvmsg(w.fd, buf, oob, 0)
		if err == nil {
			return tagged(t, buf[:n], oob[:oobn]), true
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			t.Fatalf("receive: %v", err)
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil, false
		}
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int(left/time.Millisecond)+1)
		if err != nil && err != unix.EINTR {
			t.Fatalf("poll: %v", err)
		}
	}
}

// tagged puts a tag back that the kernel has taken off.
func tagged(t testing.TB, frame, oob []byte) []byte {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA {
			continue
		}
		// struct tpacket_auxdata: status at 0, vlan_tci at 16, vlan_tpid at 18.
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tpid := uint16(unix.ETH_P_8021Q)
		if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			tpid = binary.NativeEndian.Uint16(m.Data[18:])
		}
		out := append([]byte{}, frame[:12]...)
		out = binary.BigEndian.AppendUint16(out, tpid)
		out = binary.BigEndian.AppendUint16(out, binary.NativeEndian.Uint16(m.Data[16:]))
		return append(out, frame[12:]...)
	}
	return frame
}
