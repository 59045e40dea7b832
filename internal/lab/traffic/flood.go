package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flood describes a flood of frames each of which is a new flow.
type Flood struct {
	Interface string
	DstMAC    net.HardwareAddr // the gateway's, or the victim's on the same bridge
	Source    netip.Addr
	Target    netip.Prefix // destinations are taken from it in ModeDestinations; else its address
	Mode      Mode
	Count     uint64        // frames at most, over all threads; required
	Duration  time.Duration // at most; required
	Rate      int           // frames per second over all threads; 0: as fast as they can
	Threads   int           // 0: 1
	First     uint32        // number of the first flow, so that two floods need not share flows
	Nice      int           // the sender's niceness, for one that is not to take others' CPU time by its mere sending
}

// FloodResult is what a flood sent. Frames that the interface refused (its queue was full)
// are not in Sent.
type FloodResult struct {
	Sent      uint64  `json:"sent"`
	Refused   uint64  `json:"refused"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
}

const batchLen = 64

// Resolve fills in what is not given, DstMAC and Source: the next hop's and what the route says, in the thread's network namespace.
func (f *Flood) Resolve(ctx context.Context) error {
	if f.DstMAC != nil && f.Source.IsValid() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	hop, source, err := NextHop(ctx, f.Target.Addr())
	if err != nil {
		return err
	}
	if f.DstMAC == nil {
		f.DstMAC = hop
	}
	if !f.Source.IsValid() {
		f.Source = source
	}
	return nil
}

// Run sends until Count, Duration or ctx ends it.
func (f Flood) Run(ctx context.Context) (FloodResult, error) {
	if f.Count == 0 || f.Duration <= 0 {
		return FloodResult{}, errors.New("a flood needs a count and a duration: it must end")
	}
	ifi, frames, err := f.maker()
	if err != nil {
		return FloodResult{}, err
	}
	threads := max(1, f.Threads)
	fds := make([]int, 0, threads)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for range threads {
		fd, err := packetSocket(ifi.Index)
		if err != nil {
			return FloodResult{}, err
		}
		fds = append(fds, fd)
	}
	ctx, cancel := context.WithTimeout(ctx, f.Duration)
	defer cancel()
	var (
		wg            sync.WaitGroup
		next          atomic.Uint64
		sent, refused atomic.Uint64
		failed        = make([]error, threads)
		start         = time.Now()
	)
	if f.Nice != 0 {
		// Of the whole process: threads made later inherit it.
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, f.Nice); err != nil {
			return FloodResult{}, fmt.Errorf("niceness: %w", err)
		}
	}
	for i, fd := range fds {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			s, r, err := f.send(ctx, fd, frames, &next, start)
			sent.Add(s)
			refused.Add(r)
			failed[i] = err
		})
	}
	wg.Wait()
	took := time.Since(start).Seconds()
	res := FloodResult{Sent: sent.Load(), Refused: refused.Load(), Seconds: took}
	res.PerSecond = float64(res.Sent) / took
	return res, errors.Join(failed...)
}

// maker makes the frames of a flood; frame i is a function of i. It may be used by several goroutines.
type maker interface {
	room() []byte                     // memory for put, which it may have prepared
	put(buf []byte, i uint32) (n int) // makes the first n bytes of buf frame i
}

// maker also gives the interface of the flood, in the thread's network namespace.
func (f Flood) maker() (*net.Interface, maker, error) {
	ifi, err := net.InterfaceByName(f.Interface)
	if err != nil {
		return nil, nil, fmt.Errorf("interface %s: %w", f.Interface, err)
	}
	switch f.Mode {
	case ModePorts, ModeDestinations, ModeSYN:
		m, err := newFrames(f.Mode, ifi.HardwareAddr, f.DstMAC, f.Source, f.Target)
		return ifi, m, err
	}
	own6, err := globalAddress6(ifi)
	if err != nil {
		return nil, nil, err
	}
	m, err := newAttack(f.Mode, ifi.HardwareAddr, f.DstMAC, f.Source, own6, f.Target)
	return ifi, m, err
}

// globalAddress6 is an IPv6 address of an interface; one of nobody's when it has none.
func globalAddress6(ifi *net.Interface) (netip.Addr, error) {
	list, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("interface %s: %w", ifi.Name, err)
	}
	for _, x := range list {
		if n, ok := x.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok && a.Is6() && !a.Is4In6() && !a.IsLinkLocalUnicast() {
				return a, nil
			}
		}
	}
	return netip.MustParseAddr("fd00::bad"), nil
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// batch is memory for batchLen frames and what sendmmsg is told of them.
type batch struct {
	bufs [batchLen][]byte
	iovs [batchLen]unix.Iovec
	msgs [batchLen]mmsghdr
	pin  runtime.Pinner
}

func newBatch(frames maker) *batch {
	b := new(batch)
	for i := range b.bufs {
		b.bufs[i] = frames.room()
		b.pin.Pin(&b.bufs[i][0])
		b.iovs[i].Base = &b.bufs[i][0]
		b.pin.Pin(&b.iovs[i])
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

// fill makes the first n frames, of the flows from first on.
func (b *batch) fill(frames maker, first uint32, n int) {
	for i := range n {
		b.iovs[i].SetLen(frames.put(b.bufs[i], first+uint32(i)))
	}
}

// send sends the first n frames; refused are those that the interface had no room for.
func (b *batch) send(fd, n int) (sent, refused uint64, err error) {
	for done := 0; done < n; {
		r, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[done])), uintptr(n-done), 0, 0, 0)
		switch errno {
		case 0:
			sent += uint64(r)
			done += int(r)
		case unix.EINTR:
		case unix.ENOBUFS, unix.EAGAIN:
			refused++
			done++
		default:
			return sent, refused, errno
		}
	}
	return sent, refused, nil
}

// send is one thread: it takes the next batch of flow numbers until there are none.
func (f Flood) send(ctx context.Context, fd int, frames maker, next *atomic.Uint64, start time.Time) (sent, refused uint64, err error) {
	b := newBatch(frames)
	defer b.pin.Unpin()
	size := uint64(batchLen)
	if f.Rate > 0 { // paced: a tenth of a millisecond at a time, so that it is even
		size = min(size, max(1, uint64(f.Rate)/10000))
	}
	for ctx.Err() == nil {
		first := next.Add(size) - size
		if first >= f.Count {
			return sent, refused, nil
		}
		n := int(min(size, f.Count-first))
		b.fill(frames, f.First+uint32(first), n)
		if f.Rate > 0 {
			due := start.Add(time.Duration(float64(first) / float64(f.Rate) * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
		s, r, err := b.send(fd, n)
		sent, refused = sent+s, refused+r
		if err != nil {
			return sent, refused, fmt.Errorf("send on %s: %w", f.Interface, err)
		}
	}
	return sent, refused, nil
}

// packetSocket sends frames on the interface past its queueing discipline, and receives none.
func packetSocket(ifindex int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("packet socket: bypass the queueing discipline: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	return fd, nil
}
