package model

import (
	"strings"
	"testing"
)

func TestMirrorsAndPoliciesRefused(t *testing.T) {
	g := NewGraph()
	stage := func(os ...Object) error {
		s, err := g.Stage(create(os...)...)
		if err == nil {
			s.Commit(1)
		}
		return err
	}
	if err := stage(
		&Bridge{Meta: Meta{ID: id(1)}}, &Router{Meta: Meta{ID: id(2)}},
		&Port{Meta: Meta{ID: id(3)}, BridgeID: id(1)}, &Port{Meta: Meta{ID: id(4)}, BridgeID: id(1)},
		&Port{Meta: Meta{ID: id(5)}, RouterID: id(2), PeerID: id(6)}, &Port{Meta: Meta{ID: id(6)}, BridgeID: id(1)},
		&QoSPolicy{Meta: Meta{ID: id(7)}}, &Mirror{Meta: Meta{ID: id(8)}, PortID: id(3), ToPortID: id(4)},
	); err != nil {
		t.Fatal(err)
	}
	if m := g.Get(KindMirror, id(8)).(*Mirror); m.Direction != MirrorBoth || m.Match.Fragment != FragmentAny {
		t.Errorf("defaults: %+v", m)
	}
	high := uint8(64)
	for _, c := range []struct {
		o    Object
		want string
	}{
		{&Mirror{ToPortID: id(4)}, "exactly one"},
		{&Mirror{PortID: id(3), BridgeID: id(1), ToPortID: id(4)}, "exactly one"},
		{&Mirror{PortID: id(99), ToPortID: id(4)}, "no port"},
		{&Mirror{PortID: id(3)}, "to_port: is missing"},
		{&Mirror{PortID: id(3), ToPortID: id(3)}, "is the port that is mirrored"},
		{&Mirror{PortID: id(3), ToPortID: id(5)}, "of a router"},
		{&Mirror{PortID: id(3), ToPortID: id(6)}, "linked to a peer"},
		{&Mirror{PortID: id(3), ToPortID: id(4), Direction: "up"}, "none of in, out, both"},
		{&Mirror{PortID: id(3), ToPortID: id(4), Match: Condition{DstPorts: &Range{1, 2}}}, "match.dst_ports: needs proto"},
		{&Mirror{PortID: id(3), ToPortID: id(4), Match: Condition{Connection: ConnectionReturn}}, "follows no connections"},
		{&QoSPolicy{Egress: BandwidthLimit{MaxBurstKbps: 700}}, "egress.max_kbps: is missing"},
		{&QoSPolicy{Ingress: BandwidthLimit{MaxKbps: MaxKbps + 1}}, "is more than"},
		{&QoSPolicy{Ingress: BandwidthLimit{MaxKbps: 1, MaxBurstKbps: 599}}, "one offloaded frame would not fit"},
		{&QoSPolicy{DSCP: &high}, "not within 0 and 63"},
		{&Port{RouterID: id(2), QoSPolicyID: id(7)}, "is for ports of bridges"},
		{&Port{BridgeID: id(1), QoSPolicyID: id(9)}, "no qos_policy"},
	} {
		c.o.GetMeta().ID = id(50)
		if err := stage(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
	for _, gone := range []Object{&Port{Meta: Meta{ID: id(4)}}, &Port{Meta: Meta{ID: id(3)}}} {
		if _, err := g.Stage(Op{Verb: Delete, Object: gone}); err == nil {
			t.Errorf("%v is gone while a mirror needs it", gone.GetMeta().ID)
		}
	}
}
