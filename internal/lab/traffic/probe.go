package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Probe opens a new UDP flow at every tick: one datagram, from a source port of its own, to
// an echo responder. It measures how long the first packet of a flow takes there and back.
type Probe struct {
	Target   netip.AddrPort
	Interval time.Duration // between flows; 0: 5 ms
	Timeout  time.Duration // after which a flow counts as lost; 0: 1 s
	Duration time.Duration // of opening flows; the last answers are awaited after it; required
	// Window, if not 0, is how often Live gets a summary of the flows that ended since the last one.
	Window time.Duration
	Live   func(ProbeResult)
	// Again has a second datagram sent on each flow once the first was answered, and how long both took to get there is measured:
	// the responder has to be an Echo on this machine.
	Again bool
}

// ProbeResult is the distribution of the round trip of first packets, in microseconds.
type ProbeResult struct {
	At   float64 `json:"at"` // seconds since the start, at the end of this summary
	Sent int64   `json:"sent"`
	Lost int64   `json:"lost"`
	P50  int64   `json:"p50_us"`
	P99  int64   `json:"p99_us"`
	P999 int64   `json:"p999_us"`
	Max  int64   `json:"max_us"`
	// Late is the longest that a flow was opened after its time: the machine has kept the probe itself
	// from running, and what it measured then is not the network's.
	Late     int64 `json:"late_us"`
	Realtime bool  `json:"realtime"`
	// With Again, of the whole run: how long the first packets of flows, and the second ones, took one way.
	FirstP50 int64 `json:"first_p50_us,omitempty"`
	FirstP99 int64 `json:"first_p99_us,omitempty"`
	LaterP50 int64 `json:"later_p50_us,omitempty"`
	LaterP99 int64 `json:"later_p99_us,omitempty"`
}

// Source ports of probes. They are taken in turn, at a place that the time of day gives, so
// that successive probes do not reuse a port while its last flow is remembered.
const firstPort, ports = 10000, 50000

type pending struct {
	fd   int
	sent time.Time
}

// way is that of one flow's packets, with Probe.Again.
type way struct {
	sent  int64         // the last one, by monotonic
	first time.Duration // how long the first one took; 0: it is not known yet
}

// probe is the state of a run: one thread, one poll set, no channel between a packet and its time stamp.
type probe struct {
	Probe
	epoll   int
	pending map[int]time.Time // by descriptor
	order   []pending         // oldest first
	ways    map[int]way       // by descriptor, with Again
	first   *hdrhistogram.Histogram
	later   *hdrhistogram.Histogram
	port    int
	total   *tally
	window  *tally
}

type tally struct {
	sent, lost int64
	late       time.Duration
	hist       *hdrhistogram.Histogram
}

func newTally() *tally { return &tally{hist: hdrhistogram.New(1, 60e6, 3)} }

func (t *tally) result(at time.Duration, realtime bool) ProbeResult {
	h := t.hist
	return ProbeResult{At: at.Seconds(), Sent: t.sent, Lost: t.lost, P50: h.ValueAtQuantile(50), P99: h.ValueAtQuantile(99),
		P999: h.ValueAtQuantile(99.9), Max: h.Max(), Late: t.late.Microseconds(), Realtime: realtime}
}

// Run opens flows for Duration, waits for the last answers, and returns the whole.
func (p Probe) Run(ctx context.Context) (ProbeResult, error) {
	if p.Duration <= 0 {
		return ProbeResult{}, errors.New("a probe needs a duration: it must end")
	}
	if p.Interval == 0 {
		p.Interval = 5 * time.Millisecond
	}
	if p.Timeout == 0 {
		p.Timeout = time.Second
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	realtime := Realtime() == nil
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return ProbeResult{}, fmt.Errorf("epoll: %w", err)
	}
	run := &probe{Probe: p, epoll: epoll, pending: map[int]time.Time{}, total: newTally(), window: newTally(),
		ways: map[int]way{}, first: newTally().hist, later: newTally().hist,
		port: int(time.Now().UnixMilli()/5) % ports}
	defer run.close()
	start := time.Now()
	next, nextWindow := start, start.Add(p.Window)
	for {
		now := time.Now()
		if p.Window > 0 && p.Live != nil && !now.Before(nextWindow) {
			p.Live(run.window.result(now.Sub(start), realtime))
			run.window = newTally()
			nextWindow = nextWindow.Add(p.Window)
		}
		run.expire(now)
		over := now.Sub(start) >= p.Duration || ctx.Err() != nil
		if over && len(run.pending) == 0 {
			r := run.total.result(now.Sub(start), realtime)
			if p.Again {
				r.FirstP50, r.FirstP99 = run.first.ValueAtQuantile(50), run.first.ValueAtQuantile(99)
				r.LaterP50, r.LaterP99 = run.later.ValueAtQuantile(50), run.later.ValueAtQuantile(99)
			}
			return r, nil
		}
		if !over && !now.Before(next) {
			run.total.late = max(run.total.late, now.Sub(next))
			run.window.late = max(run.window.late, now.Sub(next))
			if err := run.open(); err != nil {
				return ProbeResult{}, err
			}
			next = next.Add(p.Interval)
			continue
		}
		wait := p.Interval
		if !over {
			wait = time.Until(next)
		}
		if err := run.collect(wait); err != nil {
			return ProbeResult{}, err
		}
	}
}

// open sends the first packet of a flow that does not exist yet.
func (p *probe) open() error {
	target, family := sockaddr(p.Target)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("probe socket: %w", err)
	}
	any := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		any = netip.IPv6Unspecified()
	}
	for {
		p.port = (p.port + 1) % ports
		local, _ := sockaddr(netip.AddrPortFrom(any, uint16(firstPort+p.port)))
		if err = unix.Bind(fd, local); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err == nil {
		err = unix.Connect(fd, target)
	}
	if err == nil {
		err = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("probe of %s: %w", p.Target, err)
	}
	now := time.Now()
	p.pending[fd] = now
	p.order = append(p.order, pending{fd, now})
	p.total.sent++
	p.window.sent++
	p.write(fd, 0)
	return nil
}

// write sends a datagram of a flow; first is how long its first one took, 0: this is the first.
func (p *probe) write(fd int, first time.Duration) {
	var payload [len(stampMe) + 8]byte
	if p.Again {
		copy(payload[:], stampMe)
		p.ways[fd] = way{monotonic(), first}
	} else {
		binary.BigEndian.PutUint64(payload[:], uint64(p.port))
	}
	// A refused send is a lost flow: it is found by its timeout.
	_, _ = unix.Write(fd, payload[:])
}

// again takes an answer with Probe.Again, and reports whether the flow goes on.
func (p *probe) again(fd int, answer []byte) bool {
	w := p.ways[fd]
	took := time.Duration(int64(binary.BigEndian.Uint64(answer[len(stampMe):])) - w.sent)
	if w.first == 0 {
		p.write(fd, max(1, took))
		return true
	}
	// Beyond the histogram's range there is nothing: the timeout is far below it.
	_ = p.first.RecordValue(max(1, w.first.Microseconds()))
	_ = p.later.RecordValue(max(1, took.Microseconds()))
	return false
}

// collect waits for answers, at most that long.
func (p *probe) collect(wait time.Duration) error {
	var events [64]unix.EpollEvent
	timeout := unix.NsecToTimespec(max(0, wait.Nanoseconds()))
	n, err := epollPwait2(p.epoll, events[:], &timeout)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("epoll: %w", err)
	}
	now := time.Now()
	for _, e := range events[:max(0, n)] {
		fd := int(e.Fd)
		sent, ok := p.pending[fd]
		if !ok {
			continue
		}
		var buf [64]byte
		if _, err := unix.Read(fd, buf[:]); err != nil {
			if errors.Is(err, unix.EAGAIN) {
				continue
			}
			// An ICMP error is an answer, but not the one asked for: the flow is lost.
			p.end(fd)
			p.lose()
			continue
		}
		if p.Again && p.ways[fd].first != 0 { // the second: the first has been counted
			p.again(fd, buf[:])
			p.end(fd)
			continue
		}
		us := max(1, now.Sub(sent).Microseconds())
		// Beyond the histogram's range there is nothing: the timeout is far below it.
		_ = p.total.hist.RecordValue(us)
		_ = p.window.hist.RecordValue(us)
		if !p.Again || !p.again(fd, buf[:]) {
			p.end(fd)
		}
	}
	return nil
}

// expire counts flows without an answer as lost.
func (p *probe) expire(now time.Time) {
	for len(p.order) > 0 {
		o := p.order[0]
		sent, ok := p.pending[o.fd]
		open := ok && sent.Equal(o.sent) // the descriptor may be another flow's by now
		if open && now.Sub(o.sent) < p.Timeout {
			return
		}
		p.order = p.order[1:]
		if open {
			p.end(o.fd)
			p.lose()
		}
	}
}

func (p *probe) end(fd int) {
	delete(p.pending, fd)
	delete(p.ways, fd)
	unix.Close(fd) // leaves the poll set too
}

func (p *probe) lose() {
	p.total.lost++
	p.window.lost++
}

func (p *probe) close() {
	for fd := range p.pending {
		unix.Close(fd)
	}
	unix.Close(p.epoll)
}

func sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}, unix.AF_INET6
}
