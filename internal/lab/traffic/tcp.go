package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TCPResult is one TCP transfer.
type TCPResult struct {
	At      int64   `json:"at"` // when it was counted, in ns since 1970
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	Gbit    float64 `json:"gbit_per_second"`
	// Gap is the longest time between two reads of the receiver.
	Gap float64 `json:"longest_gap_ms"`
}

const tcpBlock = 128 << 10

func tcpResult(n int64, took, gap time.Duration) TCPResult {
	return TCPResult{At: time.Now().UnixNano(), Bytes: n, Seconds: took.Seconds(), Gbit: float64(n) * 8 / 1e9 / took.Seconds(), Gap: gap.Seconds() * 1000}
}

// Receiver is the far end of one TCP transfer.
type Receiver struct {
	Addr     netip.AddrPort // to listen on
	Duration time.Duration  // at most; required
	Ready    func()         // nil, or called as soon as it listens
	// Window, if not 0, is how often Live is told what has come since the start. It is called on the receiver's goroutine.
	Window time.Duration
	Live   func(TCPResult)
}

// Run accepts one TCP connection and counts what comes until the sender closes it. The result's bytes are those that arrived.
func (r Receiver) Run(ctx context.Context) (TCPResult, error) {
	addr, d, ready := r.Addr, r.Duration, r.Ready
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return TCPResult{}, err
	}
	defer l.Close()
	deadline := time.Now().Add(d)
	if err := l.SetDeadline(deadline); err != nil {
		return TCPResult{}, err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	if ready != nil {
		ready()
	}
	conn, err := l.AcceptTCP()
	if err != nil {
		return TCPResult{}, err
	}
	defer conn.Close()
	stopConn := context.AfterFunc(ctx, func() { conn.Close() })
	defer stopConn()
	if err := conn.SetDeadline(deadline); err != nil {
		return TCPResult{}, err
	}
	start, buf, total := time.Now(), make([]byte, 2*tcpBlock), int64(0)
	var gap time.Duration
	for last, next := start, start.Add(r.Window); ; {
		n, err := conn.Read(buf)
		total += int64(n)
		now := time.Now()
		gap, last = max(gap, now.Sub(last)), now
		if r.Window > 0 && r.Live != nil && !now.Before(next) {
			r.Live(tcpResult(total, now.Sub(start), gap))
			next = now.Add(r.Window)
		}
		if errors.Is(err, io.EOF) {
			return tcpResult(total, now.Sub(start), gap), nil
		}
		if err != nil {
			return tcpResult(total, now.Sub(start), gap), fmt.Errorf("after %d bytes: %w", total, err)
		}
	}
}

// Send connects to addr and sends for d, or until ctx ends, at most rate bytes per second if that is not 0; then it closes and waits until the receiver has
// taken all.
func Send(ctx context.Context, addr netip.AddrPort, d time.Duration, rate int) (TCPResult, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second, Control: useCubic}
	c, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return TCPResult{}, err
	}
	conn := c.(*net.TCPConn)
	defer conn.Close()
	// What is in flight when the time is over gets half a minute to arrive; less when nobody waits for it.
	if err := conn.SetDeadline(time.Now().Add(d + 30*time.Second)); err != nil {
		return TCPResult{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now().Add(4 * time.Second)) })
	defer stop()
	start, block, total := time.Now(), make([]byte, tcpBlock), int64(0)
	if rate > 0 { // about 100 writes a second
		block = block[:min(max(rate/100, 1), tcpBlock)]
	}
	for time.Since(start) < d && ctx.Err() == nil {
		if early := time.Duration(total)*time.Second/time.Duration(max(rate, 1)) - time.Since(start); rate > 0 && early > 0 {
			time.Sleep(early)
		}
		n, err := conn.Write(block)
		total += int64(n)
		if err != nil {
			return tcpResult(total, time.Since(start), 0), fmt.Errorf("after %d bytes: %w", total, err)
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return TCPResult{}, err
	}
	// The receiver closes when it has read everything: our end of file is its acknowledgement.
	if _, err := conn.Read(block[:1]); !errors.Is(err, io.EOF) {
		return tcpResult(total, time.Since(start), 0), fmt.Errorf("wait for the receiver: %w", err)
	}
	return tcpResult(total, time.Since(start), 0), nil
}

// useCubic takes the congestion control that VMs have by default (RFC 9438), whatever this machine has set: one that paces
// by the round-trip time, as BBR does, would measure delays of microseconds in place of a network's capacity.
func useCubic(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic")
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("congestion control cubic: %w", err)
	}
	return nil
}
