package sim_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
	"github.com/viaduct-net/viaduct/internal/path/sim"
)

const refusing = `
bridge a
bridge b
router r
vm va a 02:00:00:00:00:0a 10.0.1.5
vm vb b 02:00:00:00:00:0b 10.0.2.5
link a r=10.0.1.1/24
link b r=10.0.2.1/24
rule no reject
filter vb out no
rule front dnat:10.0.2.5@81 proto=6 dst=10.0.1.1
filter r pre front
rule own accept connection=new
filter va in own
rule back accept connection=return
rule back drop
filter va out back
`

// TestResetIsTakenForAnswer: numbers as of RFC 9293 section 3.10.7.1, checksums right, and never a reset about a reset.
func TestResetIsTakenForAnswer(t *testing.T) {
	for _, tc := range []struct {
		name     string
		flags    uint8
		payload  int
		seq, ack uint32
		want     uint8
	}{
		{"SYN", packet.FlagSYN, 0, 0, 1001, packet.FlagRST | packet.FlagACK},
		{"SYN with data", packet.FlagSYN, 5, 0, 1006, packet.FlagRST | packet.FlagACK},
		{"ACK", packet.FlagACK, 5, 7000, 0, packet.FlagRST},
		{"FIN", packet.FlagFIN, 0, 0, 1001, packet.FlagRST | packet.FlagACK},
		{"RST", packet.FlagRST, 0, 0, 0, 0},
	} {
		topo := pathtest.MustParse(refusing)
		eth := packet.Ether{Src: topo.MAC("va"), Dst: topo.MAC("r:a")}
		frame := packet.BuildTCP(nil, eth, packet.IP{Src: addr("10.0.1.5"), Dst: addr("10.0.1.1")},
			packet.TCP{SrcPort: 4000, DstPort: 80, Seq: 1000, Ack: 7000, Flags: tc.flags}, make([]byte, tc.payload))
		in := injection("va", frame)
		var c sim.Context
		topo.Simulate(&c, in)
		if c.Result != sim.ResultErrorDrop || c.Reason != drop.FilterReject {
			t.Fatalf("%s: %s %s", tc.name, c.Result, c.Reason)
		}
		if tc.want == 0 {
			if len(c.Generated) != 0 {
				t.Errorf("%s: answered", tc.name)
			}
			continue
		}
		if !topo.State.Commit(&c) || len(c.Generated) != 1 {
			t.Fatalf("%s: %d packets made", tc.name, len(c.Generated))
		}
		answer := slices.Clone(c.Generated[0].Frame)
		v, why := packet.Parse(answer, 1)
		h := v.Transport()
		if why != drop.None || packet.ChecksumState(&v) != packet.ChecksumValid || v.TCPFlags() != tc.want ||
			binary.BigEndian.Uint32(h[4:]) != tc.seq || binary.BigEndian.Uint32(h[8:]) != tc.ack {
			t.Errorf("%s: %s", tc.name, pathtest.Describe(answer))
		}
		// It comes out at the VM, from whom it had spoken to, and through its filter.
		back := pathtest.Injection{Port: c.Generated[0].Port, Egress: true, View: v}
		topo.Simulate(&c, &back)
		if c.Result != sim.ResultForward || c.Actions[len(c.Actions)-1].VPort != pathtest.ID("va") ||
			!slices.Contains(c.Actions, action.Action{Op: action.SetSrc, Addr: addr("10.0.1.1")}) ||
			!slices.Contains(c.Actions, action.Action{Op: action.SetSrcPort, Value: 80}) {
			t.Errorf("%s: %s %s: %v", tc.name, c.Result, c.Reason, c.Actions)
		}
	}
}

// TestRefusalsFillNobodyElsesTable: what a VM's filter refuses is not learnt at its expense.
func TestRefusalsFillNobodyElsesTable(t *testing.T) {
	topo := pathtest.MustParse(refusing + "rule both accept connection=return\nrule both reject\nfilter vb out both\n")
	in := topo.MustInject("va udp eth=va>r:a ip=10.0.1.5>10.0.2.5 ports=1>2")
	var c sim.Context
	topo.Simulate(&c, &in)
	if c.Reason != drop.FilterReject || len(c.Generated) != 1 {
		t.Fatalf("%s %s", c.Result, c.Reason)
	}
	for _, l := range c.Learn {
		if l.Kind == sim.LearnConnection && l.Port == pathtest.ID("vb") {
			t.Errorf("learnt at the receiver: %+v", l)
		}
	}
}
