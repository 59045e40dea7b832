package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// meter is a TCP stream that lasts, and how far it has come.
type meter struct {
	send, receive *tool.Process

	mu    sync.Mutex
	marks []traffic.TCPResult // oldest first
	ended chan struct{}       // closed when there will be no more of them
}

var errNoStream = errors.New("the stream does not begin")

// open begins a stream between the victims. It is under way when open returns.
func (r *rivals) open(ctx context.Context) (*meter, error) {
	receive, err := r.b.tools().StartReady(ctx, r.bob, "tcp", "receive", "--duration=10m", "--window=5ms")
	if err != nil {
		return nil, err
	}
	m := &meter{receive: receive, ended: make(chan struct{})}
	m.send, err = r.b.tools().Start(ctx, r.alice, "tcp", "send", bob+":5001", "--duration=10m")
	if err != nil {
		return nil, joinStop(err, receive, nil)
	}
	go func() {
		defer close(m.ended)
		for {
			var x traffic.TCPResult
			if receive.Next(&x) != nil {
				return
			}
			m.mu.Lock()
			m.marks = append(m.marks, x)
			m.mu.Unlock()
		}
	}()
	if !m.await(time.Now(), 15*time.Second) {
		return nil, errors.Join(errNoStream, m.close())
	}
	return m, nil
}

// await returns when it is known how far the stream had come at t; false when that is not the case in time.
func (m *meter) await(t time.Time, most time.Duration) bool {
	for end := time.Now().Add(most); ; time.Sleep(5 * time.Millisecond) {
		m.mu.Lock()
		n := len(m.marks)
		known := n > 0 && m.marks[n-1].At >= t.UnixNano()
		m.mu.Unlock()
		if known {
			return true
		}
		select {
		case <-m.ended:
			return false
		default:
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// cpu is the time that both ends have run so far; an end that is no more has none.
func (m *meter) cpu() (sum time.Duration) {
	for _, p := range []*tool.Process{m.send, m.receive} {
		if d, err := attacks.CPUTime(p.PID()); err == nil {
			sum += d
		}
	}
	return sum
}

// gbit is the mean rate between two times. A stream that stands still, or has ended, has 0.
func (m *meter) gbit(from, to time.Time) float64 {
	m.await(to, 300*time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	return (at(m.marks, to.UnixNano()) - at(m.marks, from.UnixNano())) * 8 / 1e9 / to.Sub(from).Seconds()
}

// at is how many bytes had come at a time, between marks in proportion.
func at(marks []traffic.TCPResult, t int64) float64 {
	for i := len(marks) - 1; i >= 0; i-- {
		a := marks[i]
		if a.At > t {
			continue
		}
		if i == len(marks)-1 {
			return float64(a.Bytes)
		}
		b := marks[i+1]
		return float64(a.Bytes) + float64(b.Bytes-a.Bytes)*float64(t-a.At)/float64(b.At-a.At)
	}
	return 0
}

// close ends the stream. One that did not come to its end is told of, and no error: its rate says so.
func (m *meter) close() error {
	sent := m.send.Stop(nil)
	if sent != nil {
		fmt.Fprintln(os.Stderr, "  the stream failed:", sent)
		_ = m.receive.Stop(nil) // it waits for the rest
	}
	<-m.ended
	received := m.receive.Wait(nil)
	if sent == nil {
		return received
	}
	return nil
}
