package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/health"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Target is a member that is to be checked.
type Target struct {
	Member  uuid.UUID
	Address netip.Addr
	Port    uint16
	Monitor model.HealthMonitor
	Down    bool // as far as is known when checks begin
}

// Result is what was found.
type Result struct {
	Router, Member uuid.UUID
	health.Status
}

// running is the checks of one member.
type running struct {
	Target
	stop context.CancelFunc
}

// same reports whether checks of a are those of b: what is known to begin with does not count.
func same(a, b Target) bool {
	a.Down = b.Down
	return a == b
}

// Set makes the members that are checked exactly ts. Each result that brings a member up or down, and its first one, goes to news.
func (s *Space) Set(ctx context.Context, ts []Target, news chan<- Result) {
	want := make(map[uuid.UUID]bool, len(ts))
	for _, t := range ts {
		want[t.Member] = true
		r := s.running[t.Member]
		if r != nil && same(r.Target, t) {
			continue
		}
		if r != nil {
			r.stop()
		}
		one, stop := context.WithCancel(ctx)
		s.running[t.Member] = &running{t, stop}
		s.wg.Go(func() { s.watch(one, t, news) })
	}
	for id, r := range s.running {
		if !want[id] {
			r.stop()
			delete(s.running, id)
		}
	}
}

// watch checks a member until ctx ends.
func (s *Space) watch(ctx context.Context, t Target, news chan<- Result) {
	tick := time.NewTicker(time.Duration(t.Monitor.Delay) * time.Second)
	defer tick.Stop()
	up, in := !t.Down, 0 // in: how many in a row say otherwise
	for first := true; ; {
		why := s.once(ctx, t)
		if ctx.Err() != nil {
			return
		}
		if (why == nil) == up {
			in = 0
		} else {
			in++
		}
		turned := up && in >= t.Monitor.MaxRetriesDown || !up && in >= t.Monitor.MaxRetries
		if turned {
			up, in = !up, 0
		}
		if turned || first && (why == nil) == up {
			r := Result{Router: s.router, Member: t.Member, Status: health.Status{Up: up}}
			if why != nil {
				r.Reason = why.Error()
			}
			select {
			case news <- r:
				first = false
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// once checks a member; nil: it is well.
func (s *Space) once(ctx context.Context, t Target) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(t.Monitor.Timeout)*time.Second)
	defer cancel()
	at := netip.AddrPortFrom(t.Address, t.Port).String()
	switch t.Monitor.Type {
	case model.MonitorHTTP:
		return s.http(ctx, at, &t.Monitor)
	case model.MonitorUDP:
		return s.udp(ctx, at)
	case model.MonitorPing:
		return s.ping(ctx, t.Address)
	}
	conn, err := s.dial(ctx, "tcp", at)
	if err != nil {
		return plain(err)
	}
	return conn.Close()
}

func (s *Space) http(ctx context.Context, at string, m *model.HealthMonitor) error {
	codes, err := model.ParseCodes(m.ExpectedCodes)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+m.URLPath, nil)
	if err != nil {
		return err
	}
	req.Close = true
	req.Header.Set("User-Agent", "viaduct-health")
	// The transport may dial on a goroutine of its own: dial sees to the namespace wherever it is.
	answer, err := (&http.Transport{DialContext: s.dial, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}).RoundTrip(req)
	if err != nil {
		return plain(err)
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 16<<10) // so that the server is not reset; what it says does not matter
	if !codes.Has(answer.StatusCode) {
		return fmt.Errorf("HTTP status %d, want %s", answer.StatusCode, m.ExpectedCodes)
	}
	return nil
}

// udp sends a datagram of one byte. A server need not answer; a host without one says so.
func (s *Space) udp(ctx context.Context, at string) error {
	conn, err := s.dial(ctx, "udp", at)
	if err != nil {
		return plain(err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := conn.Write([]byte{0}); err != nil {
		return plain(err)
	}
	if _, err = conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return plain(err)
}

// plain words what people see.
func plain(err error) error {
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time")
	}
	return err
}
