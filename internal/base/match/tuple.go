package match

// Tuple is one direction of a connection. An ICMP echo request has its identifier as SrcPort
// and 0 as DstPort, a reply the other way round: who asks is known by the identifier as a client by its port.
type Tuple struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8
}

// Reverse is the other direction: what answers look like.
func (t Tuple) Reverse() Tuple { return Tuple{t.Dst, t.Src, t.DstPort, t.SrcPort, t.Proto} }
