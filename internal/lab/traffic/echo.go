package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// EchoResult counts what an echo responder answered.
type EchoResult struct {
	Echoed   uint64 `json:"echoed"`
	Realtime bool   `json:"realtime"` // it ran before ordinary processes
}

// EchoPort is the UDP port of the echo service, RFC 862.
const EchoPort = 7

// stampMe begins a datagram that is to come back with when it arrived, by CLOCK_MONOTONIC, in the eight octets that follow: the same clock for all
// namespaces of a machine, so that the way there can be told from the way back.
const stampMe = "when is?"

// monotonic is CLOCK_MONOTONIC in ns.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail for this clock
	return t.Nano()
}

// Echo answers every UDP datagram to addr with itself, or with when it came (stampMe), at most for d. ready, if not nil, is
// called as soon as it listens.
func Echo(ctx context.Context, addr netip.AddrPort, d time.Duration, ready func()) (EchoResult, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return EchoResult{}, err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return EchoResult{}, err
	}
	roomy(conn)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	res := EchoResult{Realtime: Realtime() == nil}
	if ready != nil {
		ready()
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
			return res, nil
		case err != nil:
			return res, err
		}
		if n >= len(stampMe)+8 && string(buf[:len(stampMe)]) == stampMe {
			binary.BigEndian.PutUint64(buf[len(stampMe):], uint64(monotonic()))
		}
		if _, err := conn.WriteToUDPAddrPort(buf[:n], from); err == nil {
			res.Echoed++
		}
	}
}

// roomy gives a socket room for what comes while its reader does not run, on a busy machine: a full buffer would be taken for a loss of the network.
// Beyond the system's bound it needs privileges (socket(7), SO_RCVBUFFORCE).
func roomy(c *net.UDPConn) {
	const bytes = 64 << 20
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
		}
	})
}

// Realtime lets the threads of this process run before those of ordinary processes (SCHED_RR at the lowest
// priority): what a probe measures is then the network, not its own wait for a processor
// beside the generator that loads it. Threads made later inherit it.
func Realtime() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		var tid int
		if _, err := fmt.Sscan(t.Name(), &tid); err != nil {
			continue
		}
		err := unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("real-time priority: %w", err)
		}
	}
	return nil
}
