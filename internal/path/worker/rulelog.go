package worker

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// RuleLog is what was seen by rules that log, until somebody writes it down: a ring, one goroutine adds, another one
// drains. Nobody waits for anybody: what has no room, or is too much, is counted.
type RuleLog struct {
	ring       [ruleLogSize]RuleEvent
	head, tail atomic.Uint64 // head: added; tail: drained
	lost       atomic.Uint64
	limits     [ruleLimits]ruleLimit
}

const (
	ruleLogSize = 256
	ruleLimits  = 1024 // pairs of rule and port; two that share a place share their bound
	ruleRate    = 10   // a second, for each pair
	ruleBurst   = 20
)

// RuleEvent is one packet that a rule has seen.
type RuleEvent struct {
	sim.Logged
	Port uuid.UUID // by which the packet came into the virtual network
}

// ruleLimit is a bucket of ruleBurst events, which fills at ruleRate.
type ruleLimit struct {
	since int64 // when it will be, or was, full
}

// allow takes one event.
func (l *ruleLimit) allow(now int64) bool {
	const each = 1e9 / ruleRate
	full := max(l.since, now) + each
	if full > now+ruleBurst*each {
		return false
	}
	l.since = full
	return true
}

func (l *RuleLog) add(port uuid.UUID, e *sim.Logged, now int64) {
	h := binary.BigEndian.Uint64(port[8:])*0x9e3779b97f4a7c15 ^ binary.BigEndian.Uint64(e.Rule.ID[8:])*0xbf58476d1ce4e5b9
	head := l.head.Load()
	if !l.limits[h>>32%ruleLimits].allow(now) || head-l.tail.Load() == ruleLogSize {
		l.lost.Add(1)
		return
	}
	l.ring[head%ruleLogSize] = RuleEvent{*e, port}
	l.head.Store(head + 1)
}

// Drain hands over what is there, oldest first; fn must not keep the event. One goroutine may call it.
func (l *RuleLog) Drain(fn func(*RuleEvent)) {
	for at := l.tail.Load(); at != l.head.Load(); at++ {
		fn(&l.ring[at%ruleLogSize])
		l.tail.Store(at + 1)
	}
}

// Lost counts what was not kept.
func (l *RuleLog) Lost() uint64 { return l.lost.Load() }

// RuleLog is the worker's. Safe for one goroutine, any.
func (w *Worker) RuleLog() *RuleLog { return &w.rules }
