package agent

import (
	"cmp"
	"context"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/offheap"
	"github.com/viaduct-net/viaduct/internal/path/flow"
	"github.com/viaduct-net/viaduct/internal/path/upcall"
	"github.com/viaduct-net/viaduct/internal/path/worker"
)

// maxPortSeries bounds of how many ports there are series of their own; the others' are added up under the name "others".
const maxPortSeries = 500

// collectTimeout bounds how long a scrape waits for workers.
const collectTimeout = 5 * time.Second

// family is one metric: its name says subsystem and unit.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func newFamily(name, help string, kind prometheus.ValueType, labels ...string) family {
	return family{prometheus.NewDesc("viaduct_"+name, help, labels, nil), kind}
}

func counter(name, help string, labels ...string) family {
	return newFamily(name, help, prometheus.CounterValue, labels...)
}

func gauge(name, help string, labels ...string) family {
	return newFamily(name, help, prometheus.GaugeValue, labels...)
}

var (
	buildInfo     = gauge("build_info", "1, with what the agent was built from.", "version", "go_version")
	agentReady    = gauge("agent_ready", "1 when the agent serves all that it knows of.")
	agentPorts    = gauge("agent_ports", "Ports that are bound to this host.", "status")
	agentTrouble  = gauge("agent_trouble", "1 while this is wrong with the host; the agent goes on.", "trouble")
	agentTroubles = counter("agent_troubles_total", "How often this has begun to be wrong.", "trouble")
	mendedParts   = counter("datapath_mended_total", "Parts of the datapath that somebody had taken away and the agent has put back.")
	memoryLimit   = gauge("agent_memory_limit_bytes", "Memory that the agent's garbage collector keeps it within, tables included; absent when there is no limit.")
	tableBytes    = gauge("agent_tables_bytes", "Memory of the tables of flows and connections that is not in Go's heap: taken from the kernel, which may not have all of it in use.")
	tablesRefused = counter("agent_tables_refused_total", "Times that the kernel has refused memory for such a table, which is in Go's heap since.")
	agentUnseen   = gauge("agent_ports_without_series", "Ports that are added up under the name others.")

	portInfo      = gauge("port_info", "1, with what the port is called.", "port_id", "port", "device", "interface")
	portRx        = counter("port_received_packets_total", "Frames that entered the datapath at the port.", portLabels...)
	portRxBytes   = counter("port_received_bytes_total", "Bytes that entered the datapath at the port.", portLabels...)
	portTx        = counter("port_sent_packets_total", "Frames that flows sent out of the port.", portLabels...)
	portTxBytes   = counter("port_sent_bytes_total", "Bytes that flows sent out of the port.", portLabels...)
	portAdmitted  = counter("port_admitted_packets_total", "Misses that got a token and went to the agent.", portLabels...)
	portDropped   = counter("port_dropped_packets_total", "Packets that entered at the port and were dropped, in the kernel or in the agent.", append(portLabels, "stage", "reason")...)
	portExecuted  = counter("port_executed_packets_total", "Misses that the agent sent on.", portLabels...)
	portConsumed  = counter("port_consumed_packets_total", "Misses that a device kept for itself.", portLabels...)
	portWaiting   = gauge("port_waiting_packets", "Misses that are parked or held back.", portLabels...)
	portQueued    = gauge("port_queued_packets", "Misses that wait for their port's turn.", portLabels...)
	portInFlight  = gauge("port_in_flight_packets", "Misses that are on their way to the agent or wait for their port's turn.", portLabels...)
	portCredit    = gauge("port_credit_tokens", "Tokens that the port holds.", portLabels...)
	portSize      = gauge("port_capacity_tokens", "Tokens that the port holds at most.", portLabels...)
	portMasks     = gauge("port_flow_entries", "Wildcard entries of flows that begin at the port.", portLabels...)
	portWork      = counter("port_work_seconds_total", "Processing time that the port's misses took.", portLabels...)
	portFlows     = gauge("port_flows", "Exact flows that begin at the port.", portLabels...)
	portQueueing  = newFamily("port_queueing_seconds", "Time from a miss until the agent took it up.", 0, portLabels...)
	portSetup     = newFamily("port_setup_seconds", "Time from a miss until its flow was installed and it was sent.", 0, portLabels...)
	portLabels    = []string{"port_id", "port"}
	packetsIn     = counter("worker_packets_in_total", "Packets that workers took up, those that devices made included. In = executed + consumed + dropped + waiting.")
	packetsMade   = counter("worker_packets_made_total", "Packets that devices made.")
	packetsExec   = counter("worker_packets_executed_total", "Packets sent on.")
	packetsCons   = counter("worker_packets_consumed_total", "Packets that a device kept for itself.")
	packetsDrop   = counter("worker_packets_dropped_total", "Packets dropped in the agent.", "stage", "reason")
	packetsWait   = gauge("worker_packets_waiting", "Packets parked or held back.")
	packetFaults  = counter("worker_faults_total", "Packets that met a fault of the agent (a panic) and were dropped as internal.")
	flushErrors   = counter("worker_flush_errors_total", "Batches whose flows could not all be installed.")
	tokensTaken   = counter("tokens_taken_total", "Tokens that came with misses. Taken = returned + in flight.")
	tokensBack    = counter("tokens_returned_total", "Tokens given back.")
	tokensSurplus = counter("tokens_surplus_total", "Tokens given back that nobody had taken. Not 0: a fault.")
	tokensAll     = gauge("tokens_capacity", "Tokens that there shall be.")
	tokensHeld    = gauge("tokens_held", "Tokens in buckets.")
	tokensOut     = gauge("tokens_in_flight", "Tokens that packets hold.")
	tokensDebt    = gauge("tokens_debt", "Tokens in flight beyond the capacity, since buckets went or shrank.")
	bucketTokens  = gauge("bucket_tokens", "Tokens in the buckets above the ports.", "bucket")
	bucketSize    = gauge("bucket_capacity_tokens", "Tokens that the buckets above the ports hold at most.", "bucket")
	bucketShare   = gauge("bucket_shares", "The bucket's part in what its parent distributes, relative to its siblings.", "bucket")
	flowFlows     = gauge("flow_flows", "Exact flows, installed or queued.")
	flowDying     = gauge("flow_dying_flows", "Exact flows that wait to be deleted.")
	flowEntries   = gauge("flow_entries", "Wildcard entries.")
	flowHits      = counter("flow_lookups_total", "Lookups.", "table", "result")
	flowEvents    = counter("flow_events_total", "What became of flows and entries.", "event")
	stateEntries  = gauge("state_entries", "What is known.", "table")
	stateRefused  = counter("state_refused_total", "What was not learnt, because its port had no room left.", "table")
	storeUp       = gauge("mirror_following", "1 while the store is followed; 0: the last known network stays.")
	storeRevision = gauge("mirror_revision", "Revision of the store that this host has. What it lacks of viaduct_store_revision is its lag.")
	storeChanges  = counter("mirror_transactions_total", "Transactions applied.")
	storeResyncs  = counter("mirror_resyncs_total", "Times that all that is held of the network was read, the first included.")
	storeObjects  = gauge("mirror_objects", "Objects of the network that this host holds: those that its ports and their packets need.")
	storeBundles  = gauge("mirror_bundles", "Parts of the network that this host follows.")
	storeGaps     = counter("mirror_gaps_total", "Changes that the store's stream has left out, as a later one told: what they concern was read anew.")
	storeMended   = counter("mirror_mended_total", "Parts of the network that differed from the store when they were compared, and were read anew.")
)

// registry has all that the agent measures.
func (a *Agent) registry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{a, version})
	return r
}

// collector reads everything when it is asked. Whatever belongs to a worker is read on the worker's goroutine.
type collector struct {
	agent   *Agent
	version string
}

// Describe implements prometheus.Collector; it sends nothing: which series there are depends on the ports.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	s := sink{ch}
	s.put(buildInfo, 1, c.version, runtime.Version())
	ready := 0.0
	if c.agent.Ready() == nil {
		ready = 1
	}
	s.put(agentReady, ready)
	if err := c.agent.collectWorkers(ctx, s); err != nil {
		ch <- prometheus.NewInvalidMetric(packetsIn.desc, err)
	}
	c.agent.collectTroubles(s)
	c.agent.collectTokens(s)
	c.agent.collectState(s)
	ports, err := c.agent.portSeries(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(portRx.desc, err)
		return
	}
	c.agent.collectPorts(s, ports)
}

type sink struct{ ch chan<- prometheus.Metric }

func (s sink) put(f family, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...)
}

// histogram puts the counts of upcall's buckets: every other one, so that the last bound is about 4 s.
func (s sink) histogram(f family, counts []uint64, sumNS int64, labels ...string) {
	bounds := make(map[float64]uint64, len(counts)/2)
	var total uint64
	for i, n := range counts {
		total += n
		if i%2 == 0 && i < len(counts)-1 {
			bounds[float64(uint64(1)<<i)*1e-6] = total
		}
	}
	s.ch <- prometheus.MustNewConstHistogram(f.desc, total, seconds(sumNS), bounds, labels...)
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }

func (a *Agent) collectWorkers(ctx context.Context, s sink) error {
	var sum worker.Counts
	var fs flow.Stats
	for _, w := range a.workers {
		if err := w.Call(ctx, func() {
			addCounts(&sum, w.Counts())
			addFlows(&fs, w.Flows().Stats())
		}); err != nil {
			return err
		}
	}
	s.put(packetsIn, float64(sum.In))
	s.put(packetsMade, float64(sum.Made))
	s.put(packetsExec, float64(sum.Executed))
	s.put(packetsCons, float64(sum.Consumed))
	s.put(packetsWait, float64(sum.Waiting))
	for r := drop.None + 1; r < drop.NumReasons; r++ { // all, so that a rate begins at 0
		s.put(packetsDrop, float64(sum.Dropped[r]), r.Stage(), r.String())
	}
	s.put(packetFaults, float64(sum.Faults))
	s.put(flushErrors, float64(sum.FlushErrors))
	s.put(tokensTaken, float64(sum.Taken))
	s.put(tokensBack, float64(sum.Returned))
	s.put(flowFlows, float64(fs.Flows))
	s.put(flowDying, float64(fs.Dying))
	s.put(flowEntries, float64(fs.Entries))
	s.put(flowHits, float64(fs.ExactHits), "exact", "hit")
	s.put(flowHits, float64(fs.ExactMisses), "exact", "miss")
	s.put(flowHits, float64(fs.WildcardHits), "wildcard", "hit")
	s.put(flowHits, float64(fs.WildcardMisses), "wildcard", "miss")
	for _, e := range []struct {
		event string
		n     uint64
	}{
		{"entry_added", fs.Added}, {"installed", fs.Installed}, {"deleted", fs.Deleted}, {"entry_invalidated", fs.Invalidated},
		{"expired", fs.Expired}, {"entry_expired", fs.ExpiredEntries}, {"evicted", fs.Evicted}, {"entry_evicted", fs.EvictedEntries},
		{"mask_overflow", fs.MaskOverflow}, {"user_space", fs.UserSpace}, {"coarse", fs.Coarse}, {"refused", fs.Refused},
		{"put_error", fs.PutErrors}, {"delete_error", fs.DelErrors}, {"adopted", fs.Adopted}, {"orphan", fs.Orphans},
		{"differing", fs.Differing}, {"repaired", fs.Repaired},
	} {
		s.put(flowEvents, float64(e.n), e.event)
	}
	return nil
}

func (a *Agent) collectTroubles(s sink) {
	for what, err := range a.troubles.list() {
		now := 0.0
		if err != nil {
			now = 1
		}
		s.put(agentTrouble, now, what)
		s.put(agentTroubles, float64(a.troubles.begun(what)), what)
	}
	s.put(mendedParts, float64(a.mended.Load()))
	s.put(tableBytes, float64(offheap.Mapped()))
	s.put(tablesRefused, float64(offheap.Refused()))
	if n := a.memoryLimit(); n != math.MaxInt64 {
		s.put(memoryLimit, float64(n))
	}
}

func (a *Agent) collectTokens(s sink) {
	acc := a.policy.Account()
	s.put(tokensAll, float64(acc.Total))
	s.put(tokensHeld, float64(acc.Held))
	s.put(tokensOut, float64(acc.InFlight))
	s.put(tokensDebt, float64(acc.Debt))
	s.put(tokensSurplus, float64(acc.Surplus))
	for _, b := range a.policy.Snapshot() {
		if !b.Leaf {
			s.put(bucketTokens, float64(b.Tokens), b.Name)
			s.put(bucketSize, float64(b.Capacity), b.Name)
			s.put(bucketShare, float64(b.Share), b.Name)
		}
	}
}

func (a *Agent) collectState(s sink) {
	st := a.tables.Stats()
	for _, t := range []struct {
		table   string
		n       int
		refused uint64
	}{
		{"mac", st.MACs, st.RefusedMACs}, {"neighbour", st.Neighbours, st.RefusedNeighbours},
		{"bridge_neighbour", st.BridgeNeighbours, st.RefusedBridges}, {"connection", st.Connections, st.RefusedConnections},
	} {
		s.put(stateEntries, float64(t.n), t.table)
		s.put(stateRefused, float64(t.refused), t.table)
	}
	m := a.mirror.Stats()
	following := 0.0
	if m.Following {
		following = 1
	}
	s.put(storeUp, following)
	s.put(storeRevision, float64(a.mirror.Snapshot().Revision))
	s.put(storeChanges, float64(m.Changes))
	s.put(storeResyncs, float64(m.Resyncs))
	s.put(storeObjects, float64(m.Objects))
	s.put(storeBundles, float64(m.Bundles))
	s.put(storeGaps, float64(m.Gaps))
	s.put(storeMended, float64(m.Mended))
}

// portSeries are the host's ports with their counters, those beyond maxPortSeries as one.
func (a *Agent) portSeries(ctx context.Context) ([]debug.Port, error) {
	ports, err := a.Ports(ctx)
	if err != nil || len(ports) <= maxPortSeries {
		return ports, err
	}
	slices.SortFunc(ports, func(x, y debug.Port) int { return cmp.Compare(x.ID, y.ID) }) // the same ones each time
	others := debug.Port{Name: "others", Status: debug.StatusUp}
	for i := range ports[maxPortSeries:] {
		others.Add(&ports[maxPortSeries+i])
	}
	return append(ports[:maxPortSeries:maxPortSeries], others), nil
}

func (a *Agent) collectPorts(s sink, ports []debug.Port) {
	status := map[string]int{debug.StatusUp: 0, debug.StatusWaiting: 0, debug.StatusDown: 0}
	for _, b := range a.bindings.State() {
		status[string(b.State)]++
	}
	for name, n := range status {
		s.put(agentPorts, float64(n), name)
	}
	s.put(agentUnseen, float64(max(len(a.bindings.State())-maxPortSeries, 0)))
	for i := range ports {
		p := &ports[i]
		id, name := p.ID, cmp.Or(p.Name, p.ID)
		if id != "" {
			s.put(portInfo, 1, id, name, p.Device, p.Interface)
		}
		for _, v := range []struct {
			f family
			n float64
		}{
			{portRx, float64(p.RxPackets)}, {portRxBytes, float64(p.RxBytes)}, {portTx, float64(p.TxPackets)}, {portTxBytes, float64(p.TxBytes)},
			{portAdmitted, float64(p.Admitted)}, {portExecuted, float64(p.Executed)}, {portConsumed, float64(p.Consumed)},
			{portWaiting, float64(p.Waiting)}, {portQueued, float64(p.Queued)}, {portInFlight, float64(p.InFlight)},
			{portCredit, float64(p.Credit)}, {portSize, float64(p.Capacity)}, {portMasks, float64(p.Entries)}, {portWork, seconds(p.Work)}, {portFlows, float64(p.Flows)},
		} {
			s.put(v.f, v.n, id, name)
		}
		// The kernel's and whatever else has happened: sixty zeros for each port would be for nobody.
		for r := drop.None + 1; r < drop.NumReasons; r++ {
			if n := p.Drops[r.String()]; n > 0 || int(r) < drop.KernelReasons {
				s.put(portDropped, float64(n), id, name, r.Stage(), r.String())
			}
		}
		s.histogram(portQueueing, atLeast(p.Delays), p.Waited, id, name)
		s.histogram(portSetup, atLeast(p.Setups), p.Setup, id, name)
	}
}

func atLeast(counts []uint64) []uint64 {
	if len(counts) == 0 {
		return make([]uint64, upcall.DelayBuckets)
	}
	return counts
}

func addCounts(sum *worker.Counts, c worker.Counts) {
	sum.In += c.In
	sum.Made += c.Made
	sum.Executed += c.Executed
	sum.Consumed += c.Consumed
	sum.Waiting += c.Waiting
	sum.Taken += c.Taken
	sum.Returned += c.Returned
	sum.FlushErrors += c.FlushErrors
	sum.Faults += c.Faults
	for r, n := range c.Dropped {
		sum.Dropped[r] += n
	}
}

func addFlows(sum *flow.Stats, s flow.Stats) {
	for _, x := range []struct {
		to *uint64
		n  uint64
	}{
		{&sum.ExactHits, s.ExactHits}, {&sum.ExactMisses, s.ExactMisses}, {&sum.WildcardHits, s.WildcardHits}, {&sum.WildcardMisses, s.WildcardMisses},
		{&sum.Added, s.Added}, {&sum.Installed, s.Installed}, {&sum.Deleted, s.Deleted}, {&sum.Invalidated, s.Invalidated},
		{&sum.Expired, s.Expired}, {&sum.ExpiredEntries, s.ExpiredEntries}, {&sum.Evicted, s.Evicted}, {&sum.EvictedEntries, s.EvictedEntries},
		{&sum.MaskOverflow, s.MaskOverflow}, {&sum.UserSpace, s.UserSpace}, {&sum.Coarse, s.Coarse}, {&sum.Refused, s.Refused},
		{&sum.PutErrors, s.PutErrors}, {&sum.DelErrors, s.DelErrors}, {&sum.Adopted, s.Adopted}, {&sum.Orphans, s.Orphans},
		{&sum.Differing, s.Differing}, {&sum.Repaired, s.Repaired},
	} {
		*x.to += x.n
	}
	sum.Flows += s.Flows
	sum.Dying += s.Dying
	sum.Entries += s.Entries
}
