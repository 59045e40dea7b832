package worker

import (
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// ahead has what the stages will look up for a packet brought into the cache, while those that were read before it are served: flows by its key,
// connections by its addresses and ports. What translation makes of these is not known yet.
func (w *Worker) ahead(m *datapath.Miss) {
	if !w.flows.Ahead(&m.Key) {
		return
	}
	if t, ok := tupleOf(&m.Key); ok {
		w.tables.AheadConnection(&t)
	}
}

// tupleOf is the direction of a connection that a packet of a protocol with ports has; ICMP's says more than its key.
func tupleOf(k *match.Key) (t match.Tuple, ok bool) {
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		return match.Tuple{Src: k.Src, Dst: k.Dst, SrcPort: k.SrcPort, DstPort: k.DstPort, Proto: k.Proto}, k.Frag == match.FragNone
	}
	return t, false
}
