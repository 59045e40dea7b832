// Package datapathtest says in tests what package datapath says in comments. Every
// implementation must pass Run.
package datapathtest

import (
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Rig is the world around a datapath: interfaces, and whoever is plugged into them. Its interfaces
// must be quiet: nothing enters the datapath but what Send sends.
type Rig interface {
	// NewPort makes an interface to be given to AddPort, and returns its name.
	NewPort(t testing.TB) string
	// Send lets the peer of iface send a frame into the datapath. A VLAN tag is in the frame.
	Send(t testing.TB, iface string, frame []byte)
	// Recv returns the next frame that came out of iface, with its VLAN tag, or
	// false when none comes within timeout. Frames of one interface keep their order.
	Recv(t testing.TB, iface string, timeout time.Duration) ([]byte, bool)
}

// Limits are what a kernel that is not ours cannot do. Each is something that the contract lets a datapath
// refuse or leave uncounted; the zero value is a datapath without any.
type Limits struct {
	// Coarse reports keys that the datapath does not tell from others. It refuses flows for them with
	// datapath.ErrKey, so that their packets go on missing. Nil: none.
	Coarse func(k *match.Key) bool
	// LateTTL: a flow whose TTL is decremented after an output is refused with datapath.ErrActions.
	LateTTL bool
	// DropsUncounted: neither drop.FlowDrop nor drop.OutputGone is counted.
	DropsUncounted bool
	// ClosedAsEmpty: what a closed port sends is counted as drop.NoCredit, not as drop.NotReady.
	ClosedAsEmpty bool
	// LentUntold: Miss.Lent is false whosever the token is.
	LentUntold bool
	// Only runs tests with that prefix, for a variant of a datapath that differs from it there alone.
	Only string
	// NoTunnels: keys of tunnels are refused with datapath.ErrTunnel.
	NoTunnels bool
	// NoRates: bandwidth limits are refused with datapath.ErrRates.
	NoRates bool
}

// Run tests a datapath without limits. Open returns a fresh one without ports, flows and root
// credit; it registers the cleaning up, and must bear that the test has closed the datapath.
func Run(t *testing.T, open func(t *testing.T) (datapath.Datapath, Rig)) {
	RunLimited(t, Limits{}, open)
}

// RunLimited is Run for a datapath with limits. What they allow is checked to happen.
func RunLimited(t *testing.T, limits Limits, open func(t *testing.T) (datapath.Datapath, Rig)) {
	for _, c := range []struct {
		name string
		f    func(b *bench)
	}{
		{"Ports/AddIsIdempotent", portsIdempotent},
		{"Ports/ListAndDelete", portsListAndDelete},
		{"Ports/NumbersAreNotReused", portsNumbers},
		{"Ports/NoInterface", portsNoInterface},
		{"Ports/NoSuchPort", portsNoSuchPort},
		{"Miss/FrameKeyReason", missExact},
		{"Miss/TimeoutAndBatch", missBatch},
		{"Miss/NoCredit", missNoCredit},
		{"Miss/Lent", missLent},
		{"Miss/NotReady", missNotReady},
		{"Miss/LeafBeforeRoot", missLeafBeforeRoot},
		{"Miss/CreditIsConserved", missConservation},
		{"Miss/ConnectionKeepsItsWorker", missAffinity},
		{"Miss/Wake", missWake},
		{"Miss/Malformed", missMalformed},
		{"Flow/Forward", flowForward},
		{"Flow/Drop", flowDrop},
		{"Flow/Flood", flowFlood},
		{"Flow/Cumulative", flowCumulative},
		{"Flow/LateTTL", flowLateTTL},
		{"Flow/Coarse", flowCoarse},
		{"Flow/Rewrites", flowRewrites},
		{"Flow/VLAN", flowVLAN},
		{"Flow/TTL", flowTTL},
		{"Flow/Length", flowLength},
		{"Flow/Fragments", flowFragments},
		{"Flow/Replace", flowReplace},
		{"Flow/Delete", flowDelete},
		{"Flow/OutputGone", flowOutputGone},
		{"Table/Thousands", tableThousands},
		{"Table/PartialFailure", tablePartialFailure},
		{"Table/TooManyOutputs", tableTooMany},
		{"Table/UnfitActions", tableUnfit},
		{"Table/SCTPPorts", tableSCTPPorts},
		{"Table/DumpRoundTrip", tableDump},
		{"Table/DumpStops", tableDumpStops},
		{"Table/TCPFlags", tableTCPFlags},
		{"Table/Concurrent", tableConcurrent},
		{"Execute/Rewrites", executeRewrites},
		{"Execute/Batch", executeBatch},
		{"Tunnel/Keys", tunnelKeys},
		{"Rates/Limit", rates},
		{"Close", closed},
	} {
		if !strings.HasPrefix(c.name, limits.Only) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			dp, rig := open(t)
			c.f(&bench{T: t, dp: dp, rig: rig, limits: limits})
		})
	}
}
