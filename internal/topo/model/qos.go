package model

import (
	"fmt"

	"github.com/google/uuid"
)

// QoSPolicy is what ports that name it may use of the network, in Neutron's terms: egress is what the VM sends, ingress what it gets.
type QoSPolicy struct {
	Meta
	Egress, Ingress BandwidthLimit
	// DSCP is written into IP packets that the VM sends (RFC 2474); nil: they keep theirs. ECN is never touched.
	DSCP *uint8
}

// BandwidthLimit is a token bucket. What exceeds it is dropped.
type BandwidthLimit struct {
	MaxKbps      uint32 // 1000 bits a second of Ethernet frames; 0: no limit
	MaxBurstKbps uint32 // 1000 bits that may come at once; 0: what MaxKbps allows in 200 ms, or MinBurst if that is more
}

// Limits of BandwidthLimit. A burst must hold a whole offloaded frame.
const (
	MaxKbps   = 100_000_000
	MinBurst  = 600 // kbit: 75 KB
	maxDSCP   = 63
	burstTime = 5 // a fraction of a second: TCP needs room for its bursts
)

// Burst is the size of the bucket in kbit, the default included.
func (l BandwidthLimit) Burst() uint32 {
	if l.MaxBurstKbps != 0 {
		return l.MaxBurstKbps
	}
	return max(l.MaxKbps/burstTime, MinBurst)
}

// Kind implements Object.
func (*QoSPolicy) Kind() Kind { return KindQoSPolicy }

func validateQoSPolicy(q *QoSPolicy) error {
	for _, x := range []struct {
		field string
		l     BandwidthLimit
	}{{"egress", q.Egress}, {"ingress", q.Ingress}} {
		switch {
		case x.l.MaxKbps == 0 && x.l.MaxBurstKbps != 0:
			return fieldErr(q, x.field+".max_kbps", "is missing: a burst alone limits nothing")
		case x.l.MaxKbps > MaxKbps:
			return fieldErr(q, x.field+".max_kbps", fmt.Sprintf("%d is more than %d", x.l.MaxKbps, MaxKbps))
		case x.l.MaxBurstKbps > MaxKbps:
			return fieldErr(q, x.field+".max_burst_kbps", fmt.Sprintf("%d is more than %d", x.l.MaxBurstKbps, MaxKbps))
		case x.l.MaxBurstKbps != 0 && x.l.MaxBurstKbps < MinBurst:
			return fieldErr(q, x.field+".max_burst_kbps", fmt.Sprintf("%d is less than %d: one offloaded frame would not fit", x.l.MaxBurstKbps, MinBurst))
		}
	}
	if q.DSCP != nil {
		if reason := badDSCP(*q.DSCP); reason != "" {
			return fieldErr(q, "dscp", reason)
		}
	}
	return nil
}

func badDSCP(dscp uint8) string {
	if dscp > maxDSCP {
		return fmt.Sprintf("%d is not within 0 and %d", dscp, maxDSCP)
	}
	return ""
}

func (g *Graph) validateQoS(p *Port) error {
	if p.QoSPolicyID == uuid.Nil {
		return nil
	}
	if p.BridgeID == uuid.Nil {
		return fieldErr(p, "qos_policy", "is for ports of bridges")
	}
	return g.exists(p, "qos_policy", KindQoSPolicy, p.QoSPolicyID)
}
