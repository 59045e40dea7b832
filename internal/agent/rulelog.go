package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/worker"
)

// followRules writes down, far from the packets' way, what rules that log have seen.
func (a *Agent) followRules(ctx context.Context) error {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	log := a.logs.For(logRules)
	lost := make([]uint64, len(a.workers))
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		for i, w := range a.workers {
			w.RuleLog().Drain(func(e *worker.RuleEvent) { a.logRule(log, e) })
			if n := w.RuleLog().Lost(); n != lost[i] {
				log.Warn("rules have seen more than is logged", "worker", i, "lost", n-lost[i])
				lost[i] = n
			}
		}
	}
}

// logRule writes what one rule has made of one packet, which need not be the end of it.
func (a *Agent) logRule(log *slog.Logger, e *worker.RuleEvent) {
	port := e.Port.String()
	if p := a.mirror.Snapshot().Port(e.Port); p != nil && p.Name != "" {
		port = p.Name
	}
	k := match.Key{EthSrc: e.EthSrc, EthDst: e.EthDst, EthType: e.EthType, VLAN: e.VLAN, Proto: e.Proto, Src: e.Src, Dst: e.Dst, SrcPort: e.SrcPort, DstPort: e.DstPort}
	fields := match.EthType | match.Src | match.Dst | match.Proto | match.SrcPort | match.DstPort
	if e.Src == (match.Addr{}) {
		fields = match.EthType | match.EthSrc | match.EthDst
	}
	if e.VLAN != 0 {
		fields |= match.VLAN
	}
	log.Info("rule", "chain", named(e.Chain.Name, e.Chain.ID), "rule", e.Rule.Label(), "verdict", e.Rule.Action(), "at", e.Place, "of", e.Device,
		"from_port", port, "packet", k.Text(fields))
}
