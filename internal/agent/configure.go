package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/logs"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/prep"
	"github.com/viaduct-net/viaduct/internal/path/worker"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/state/arp"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/fragment"
	"github.com/viaduct-net/viaduct/internal/state/mac"
	"github.com/viaduct-net/viaduct/internal/state/nat"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Subsystems that log, each with a level of its own: agent.loggers.NAME.
const (
	logConfig   = "config"
	logDatapath = "datapath-control"
	logRules    = "rules"
	logFlows    = "flow-management"
	logStore    = "nsdb.root"
	logTopology = "devices.root"
	logPorts    = "devices.port"
)

// readConf reads what is configured for the host. It waits for a store that cannot be reached.
func readConf(ctx context.Context, k store.Keys, host uuid.UUID) (conf.Resolved, error) {
	for {
		r, _, err := conf.Read(ctx, k, host)
		if !errors.Is(err, store.ErrUnavailable) {
			return r, err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return r, errors.Join(err, ctx.Err())
		}
	}
}

// followConf applies the configuration while the agent runs, and reports what has become of it.
func (a *Agent) followConf(ctx context.Context) error {
	log := a.logs.For(logConfig)
	reported := make(chan error, 1)
	go func() { reported <- a.cfg.Keys.Announce(ctx, conf.ReportKey(a.host.ID), a.reports) }()
	last := a.boot
	a.auditEvery <- last.Settings.FlowAudit
	err := conf.Follow(ctx, a.cfg.Keys, a.host.ID, log, func(r conf.Resolved, rev int64) {
		logChanges(log, last.Values, r.Values)
		report, err := a.configure(ctx, r)
		if err != nil {
			return // ctx has ended
		}
		last, report.Revision = r, rev
		replace(a.reports, report.Text())
	})
	<-reported
	return err
}

func logChanges(log *slog.Logger, was, is []conf.Effective) {
	for i, v := range is {
		if v.Text != was[i].Text {
			log.Info("configured", "key", v.Key.Name, "value", v.Text, "source", v.Source, "restart", v.Key.Restart)
		}
	}
}

// replace leaves v, and nothing older, in a channel that holds one.
func replace[T any](ch chan T, v T) {
	select {
	case <-ch:
	default:
	}
	ch <- v
}

// configure applies all that applies at once, and returns when the workers have it.
func (a *Agent) configure(ctx context.Context, r conf.Resolved) (report conf.Report, err error) {
	s := r.Settings
	a.setLevels(s)
	a.limitMemory(s.MemoryLimit)
	a.policy.Reconfigure(s.Tokens)
	a.tables.Reconfigure(stateConfig(s))
	replace(a.auditEvery, s.FlowAudit)
	c, problem := a.workerConfig(s)
	if problem != nil {
		report.Problems = append(report.Problems, problem.Error())
	}
	for _, w := range a.workers {
		if err := w.Call(ctx, func() { w.Reconfigure(c) }); err != nil {
			return report, err
		}
		for more := true; more; {
			if err := w.Call(ctx, func() { more = w.Trim() }); err != nil {
				return report, err
			}
		}
	}
	for i, v := range r.Values {
		if v.Key.Restart && v.Text != a.boot.Values[i].Text {
			report.Pending = append(report.Pending, v.Key.Name)
		}
	}
	for _, err := range r.Ignored {
		report.Problems = append(report.Problems, err.Error())
	}
	for _, p := range report.Problems {
		if !slices.Contains(a.problems, p) {
			a.logs.For(logConfig).Warn("not applied", "problem", p)
		}
	}
	a.problems = report.Problems
	return report, nil
}

// setLevels changes what is logged.
func (a *Agent) setLevels(s *conf.Settings) {
	l := s.Loggers
	own := make(map[string]slog.Level)
	for name, text := range map[string]string{
		logConfig: l.Config, logDatapath: l.Datapath, logFlows: l.Flows, logStore: l.Store, logTopology: l.Topology, logPorts: l.Ports,
	} {
		if text != "inherit" {
			own[name] = level(text)
		}
	}
	a.logs.SetLevels(level(l.Root), own)
}

func level(text string) slog.Level {
	if text == "off" {
		return logs.Off
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(text)); err != nil {
		panic(err) // the schema accepts no others
	}
	return l
}

// flowRoomer is a datapath whose table of flows has a size.
type flowRoomer interface{ FlowRoom() int }

// workerConfig is that of each worker. problem is not nil when the datapath does not allow it all.
func (a *Agent) workerConfig(s *conf.Settings) (c worker.Config, problem error) {
	flows := s.MaxFlowCount
	if d, ok := a.dp.(flowRoomer); ok && d.FlowRoom() < flows {
		flows = d.FlowRoom()
		problem = fmt.Errorf("agent.datapath.max_flow_count: the kernel's table has room for %d flows: start the agent again to have a larger one", flows)
	}
	return worker.Config{
		Linger:   s.Conntrack.FINLinger,
		Expected: max(s.Flow.MaxExpectedPerPort/a.dp.Workers(), 1),
		Flow: flow.Config{
			MaxFlows: max(flows/a.dp.Workers(), 1), MaxMasks: s.Flow.MaxMasksPerPort, Idle: max(s.Flow.IdleTimeout, 2*s.FlowAudit), Error: s.Flow.ErrorExpiry,
		},
		Prep: prep.Config{
			HeldPerFlow: s.Prep.HeldPerFlow, HeldPerPort: s.Prep.HeldPerPort, ParkPerPort: s.Prep.ParkedPerPort, ParkTime: s.Prep.ParkTimeout,
		},
		Replies: worker.Replies{PerSecond: s.Replies.PerSecond, Burst: s.Replies.Burst},
	}, problem
}

func stateConfig(s *conf.Settings) state.Config {
	return state.Config{
		MAC: mac.Config{MaxPerPort: s.Bridge.MaxMACsPerPort, Expire: s.Bridge.MACExpire},
		ARP: arp.Config{
			MaxPerPort: s.ARP.MaxPerPort, MaxPending: s.ARP.MaxPending, Retry: s.ARP.Retry, GiveUp: s.ARP.GiveUp, Failed: s.ARP.Failed, Stale: s.ARP.Stale, Expire: s.ARP.Expires,
		},
		Conntrack: conntrack.Config{
			MaxPerOwner: s.Conntrack.MaxPerPort, TCPNew: s.Conntrack.TCPNew, TCP: s.Conntrack.TCP, TCPClosed: s.Conntrack.TCPClosed,
			UDPNew: s.Conntrack.UDPNew, UDP: s.Conntrack.UDP, Other: s.Conntrack.Other,
		},
		NAT:       nat.Config{Idle: s.NAT.BlockIdle, Retry: s.NAT.BlockRetry},
		Fragments: fragment.DefaultConfig(),
	}
}
