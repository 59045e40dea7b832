package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// Stream sends numbered datagrams of one flow to an echo responder, at a steady rate, and counts those that do not come back: it shows every
// loss in either direction.
type Stream struct {
	Target   netip.AddrPort
	Rate     int // datagrams per second; required
	Duration time.Duration
	Linger   time.Duration // how long the last answers are awaited; 0: 2 s
}

// StreamResult is what became of a stream.
type StreamResult struct {
	Sent     uint64 `json:"sent"`
	Lost     uint64 `json:"lost"`
	Repeated uint64 `json:"repeated"`
	Gap      int64  `json:"gap_us"`  // longest time without an answer, microseconds
	Late     int64  `json:"late_us"` // longest that a datagram was sent after its time
}

// Run sends until Duration is over or ctx ends, and waits for the last answers.
func (s Stream) Run(ctx context.Context) (r StreamResult, err error) {
	if s.Rate <= 0 || s.Duration <= 0 {
		return r, errors.New("a stream needs a rate and a duration: it must end")
	}
	if s.Linger == 0 {
		s.Linger = 2 * time.Second
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.Target))
	if err != nil {
		return r, err
	}
	defer c.Close()
	roomy(c)
	var sent atomic.Uint64
	var over atomic.Bool
	answered := make(chan StreamResult, 1)
	go func() { answered <- s.count(c, &sent, &over) }()
	var payload [64]byte
	start, step := time.Now(), time.Second/time.Duration(s.Rate)
	t := time.NewTicker(max(step, time.Millisecond))
	defer t.Stop()
	for ctx.Err() == nil && time.Since(start) < s.Duration {
		for due := uint64(time.Since(start) / step); sent.Load() <= due; {
			n := sent.Load()
			r.Late = max(r.Late, (time.Since(start) - time.Duration(n)*step).Microseconds())
			binary.BigEndian.PutUint64(payload[:], n)
			if _, err := c.Write(payload[:]); err != nil {
				return r, fmt.Errorf("datagram %d: %w", n, err)
			}
			sent.Add(1)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	over.Store(true)
	_ = c.SetReadDeadline(time.Now().Add(s.Linger))
	got := <-answered
	got.Late = r.Late
	return got, nil
}

// count reads answers until all are there, or the deadline.
func (s Stream) count(c *net.UDPConn, sent *atomic.Uint64, over *atomic.Bool) (r StreamResult) {
	seen := map[uint64]bool{} // beyond next: answers that came out of order
	var next, got uint64      // all before next are there
	buf, last := make([]byte, 2048), time.Now()
	for !over.Load() || got < sent.Load() {
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			break
		}
		now := time.Now()
		if err != nil || n < 8 { // an ICMP error is no answer: the datagram is lost
			continue
		}
		no := binary.BigEndian.Uint64(buf)
		if no < next || seen[no] {
			r.Repeated++
			continue
		}
		r.Gap = max(r.Gap, now.Sub(last).Microseconds())
		last = now
		got++
		if seen[no] = true; len(seen) > 1<<16 { // long after a loss
			next, seen = no+1, map[uint64]bool{}
		}
		for seen[next] {
			delete(seen, next)
			next++
		}
	}
	r.Sent = sent.Load()
	r.Lost = r.Sent - got
	return r
}
