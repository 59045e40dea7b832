package wire

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// full has every field of a condition.
func full() model.Condition {
	tos := uint8(0)
	return model.Condition{
		Invert: true, Not: model.MatchSrc | model.MatchQuotedDst | model.MatchInPorts | model.MatchFragment | model.MatchConnection | model.MatchNoVLAN,
		InPorts: []uuid.UUID{{1}, {2}}, OutPorts: []uuid.UUID{{3}}, InPortGroup: uuid.UUID{4}, OutPortGroup: uuid.UUID{5}, PortGroup: uuid.UUID{6},
		Traversed: uuid.UUID{7}, EthType: 0x88cc, EthSrc: model.MACMatch{Addr: match.MAC{2}, Mask: match.MAC{0xff}},
		EthDst: model.MACMatch{Addr: match.MAC{2, 5: 1}, Mask: model.FullMAC}, VLAN: 4094, NoVLAN: true, TOS: &tos, Proto: 132,
		Src: netip.MustParsePrefix("10.0.0.0/8"), Dst: netip.MustParsePrefix("10.0.0.1/32"),
		OriginalDst: netip.MustParsePrefix("203.0.113.0/24"), DstRewritten: true, SrcGroup: uuid.UUID{8}, DstGroup: uuid.UUID{9},
		SrcPorts: &model.Range{From: 0, To: 0}, DstPorts: &model.Range{From: 80, To: 90}, ICMPTypes: &model.Range{From: 8, To: 8}, ICMPCodes: &model.Range{From: 0, To: 15},
		QuotedSrc: netip.MustParsePrefix("fd00::/8"), QuotedDst: netip.MustParsePrefix("fd00::1/128"), Fragment: model.FragmentUnfragmented, Connection: model.ConnectionNew,
	}
}

func TestRuleRoundTrip(t *testing.T) {
	want := &model.Rule{Meta: model.Meta{ID: uuid.UUID{1}, Name: "r"}, ChainID: uuid.UUID{2}, Position: 7, Action: model.RuleJump, JumpID: uuid.UUID{3}, Match: full()}
	fields := reflect.ValueOf(want.Match)
	for i := range fields.NumField() {
		if fields.Field(i).IsZero() {
			t.Errorf("the test leaves out %s", fields.Type().Field(i).Name)
		}
	}
	b, err := json.Marshal(FromModel(want))
	if err != nil {
		t.Fatal(err)
	}
	var w Rule
	if err := json.Unmarshal(b, &w); err != nil {
		t.Fatal(err)
	}
	got, err := w.Model()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\ncame back as\n%+v", b, got)
	}
}

func TestRuleRefused(t *testing.T) {
	big := 256
	for _, c := range []struct {
		match Match
		want  string
	}{
		{Match{SrcPorts: "80-"}, `match.src_ports: "80-" is not a number or a range`},
		{Match{DstPorts: "65536"}, `match.dst_ports: "65536" is not a number`},
		{Match{Proto: "tpc"}, `match.proto: "tpc" is none of tcp, udp`},
		{Match{Proto: "0"}, `match.proto: "0" is none of`},
		{Match{Proto: "256"}, `match.proto: "256" is none of`},
		{Match{EthType: "ipx"}, `match.eth_type: "ipx" is none of ipv4`},
		{Match{Src: "10.0.0"}, `match.src: "10.0.0" is not an address`},
		{Match{EthSrc: "02:00:00:00:00:01/00:00:00:00:00:00"}, "mask without bits"},
		{Match{TOS: &big}, `match.tos: "256"`},
		{Match{VLAN: -1}, `match.vlan: "-1"`},
		{Match{Not: []string{"invert"}}, `match.not[0]: "invert" is not a field that can be inverted`},
		{Match{InPorts: []string{""}}, `match.in_ports[0]: is empty`},
	} {
		_, err := (&Rule{Match: &c.match}).Model()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.match, err, c.want)
		}
	}
}
