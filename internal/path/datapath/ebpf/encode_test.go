package ebpf

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

var (
	tcp4 = match.Key{EthType: packet.EthTypeIPv4, Proto: packet.ProtoTCP, VLAN: 5 | match.VLANPresent}
	tcp6 = match.Key{EthType: packet.EthTypeIPv6, Proto: packet.ProtoTCP}
)

func genAction(k *match.Key) *rapid.Generator[action.Action] {
	return rapid.Custom(func(t *rapid.T) (a action.Action) {
		a.Op = action.Op(rapid.IntRange(int(action.SetEthSrc), int(action.Tunnel)).Filter(func(i int) bool {
			return action.Op(i) != action.Forward
		}).Draw(t, "op"))
		addr := func() (a match.Addr) {
			if k.EthType == packet.EthTypeIPv4 {
				return packet.Addr4(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr"))
			}
			copy(a[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr"))
			a[0] |= 0x20 // not the mapped form
			return a
		}
		switch a.Op {
		case action.SetEthSrc, action.SetEthDst:
			copy(a.MAC[:], rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
		case action.SetSrc, action.SetDst:
			a.Addr = addr()
		case action.SetTOS:
			a.Value = uint16(rapid.Byte().Draw(t, "tos"))
		case action.SetSrcPort, action.SetDstPort, action.PushVLAN:
			a.Value = rapid.Uint16().Draw(t, "value")
		case action.Tunnel:
			a.Addr, a.Key = addr(), rapid.Uint32().Draw(t, "key")
			if rapid.Bool().Draw(t, "other underlay") {
				a.Addr = packet.Addr4([]byte{192, 0, 2, rapid.Byte().Draw(t, "peer")})
			}
			fallthrough
		case action.Output:
			a.Port = rapid.Uint32().Draw(t, "port")
		}
		return a
	})
}

// normal is the oracle of encode's normal form, a slow one.
func normal(as action.Physical) (out action.Physical) {
	last := -1
	for i, a := range as {
		if a.Op == action.Output || a.Op == action.Tunnel {
			last = i
		}
	}
	for i, a := range as[:last+1] {
		overridden := false
		for _, b := range as[i+1 : last+1] {
			if b.Op == action.Output || b.Op == action.Tunnel {
				break
			}
			overridden = overridden || b.Op == a.Op && a.Op != action.DecTTL
		}
		if !overridden || a.Op == action.Output || a.Op == action.Tunnel {
			out = append(out, a)
		}
	}
	return out
}

func TestEncodeDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.SampledFrom([]match.Key{tcp4, tcp6}).Draw(t, "key")
		as := action.Physical(rapid.SliceOfN(genAction(&k), 0, 24).Draw(t, "actions"))
		if rapid.Bool().Draw(t, "checked") {
			as = slices.Insert(as, 0, action.Action{Op: action.CheckLen, Value: rapid.Uint16Min(1).Draw(t, "most")})
		}
		before := slices.Clone(as)
		var e encoder
		err := e.encode(&k, as)
		if !reflect.DeepEqual(as, before) {
			t.Fatal("the list was changed")
		}
		if err != nil {
			if !errors.Is(err, datapath.ErrActions) {
				t.Fatal(err)
			}
			return
		}
		var got action.Physical
		if e.maxLen != 0 {
			got = append(got, action.Action{Op: action.CheckLen, Value: e.maxLen})
		}
		for i := range e.steps {
			w := e.steps[i]
			var s bpfStep
			if compact(&k, &w, &s) {
				w = expand(&k, &s)
			}
			if w != e.steps[i] {
				t.Fatalf("step %+v became %+v", e.steps[i], w)
			}
			got = decode(got, &w)
		}
		if want := normal(as); !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		if c := normal(as).TTLCost(); e.ttlCost != c {
			t.Fatalf("TTL cost %d, want %d", e.ttlCost, c)
		}
	})
}

func TestEncodeRefuses(t *testing.T) {
	out := action.Action{Op: action.Output, Port: 1}
	arp := match.Key{EthType: packet.EthTypeARP}
	sctp := match.Key{EthType: packet.EthTypeIPv4, Proto: packet.ProtoSCTP}
	for name, c := range map[string]struct {
		k  match.Key
		as action.Physical
		ok bool
	}{
		"forward":                {tcp4, action.Physical{{Op: action.Forward}}, false},
		"address of ARP":         {arp, action.Physical{{Op: action.SetSrc}, out}, false},
		"TTL of ARP":             {arp, action.Physical{{Op: action.DecTTL}, out}, false},
		"MAC of ARP":             {arp, action.Physical{{Op: action.SetEthDst}, out}, true},
		"other family":           {tcp6, action.Physical{{Op: action.SetSrc, Addr: packet.Addr4([]byte{1, 2, 3, 4})}, out}, false},
		"port of SCTP":           {sctp, action.Physical{{Op: action.SetSrcPort}, out}, false},
		"address of SCTP":        {sctp, action.Physical{{Op: action.SetSrc, Addr: packet.Addr4([]byte{1, 2, 3, 4})}, out}, true},
		"pop of untagged":        {tcp6, action.Physical{{Op: action.PopVLAN}, out}, false},
		"pop":                    {tcp4, action.Physical{{Op: action.PopVLAN}, out}, true},
		"pop twice":              {tcp4, action.Physical{{Op: action.PopVLAN}, {Op: action.PopVLAN}, out}, false},
		"pop what was pushed":    {tcp6, action.Physical{{Op: action.PushVLAN}, {Op: action.PopVLAN}, out}, false},
		"pop and push":           {tcp4, action.Physical{{Op: action.PopVLAN}, {Op: action.PushVLAN, Value: 1}, out}, true},
		"push, output, pop":      {tcp6, action.Physical{{Op: action.PushVLAN}, out, {Op: action.PopVLAN}, out}, true},
		"as many outputs":        {tcp4, slices.Repeat(action.Physical{out}, maxSteps), true},
		"one output more":        {tcp4, slices.Repeat(action.Physical{out}, maxSteps+1), false},
		"length":                 {tcp6, action.Physical{{Op: action.CheckLen, Value: 1500}, out}, true},
		"length of ARP":          {arp, action.Physical{{Op: action.CheckLen, Value: 1500}, out}, false},
		"no length":              {tcp4, action.Physical{{Op: action.CheckLen}, out}, false},
		"late length":            {tcp4, action.Physical{{Op: action.SetTOS}, {Op: action.CheckLen, Value: 1500}, out}, false},
		"length of what is left": {tcp4, action.Physical{out, {Op: action.CheckLen, Value: 1500}, out}, false},
		"two lengths":            {tcp4, action.Physical{{Op: action.CheckLen, Value: 1500}, {Op: action.CheckLen, Value: 1500}, out}, false},
		"too many before output": {tcp4, append(slices.Repeat(action.Physical{{Op: action.DecTTL}}, maxOrder), out), false},
	} {
		var e encoder
		if err := e.encode(&c.k, c.as); (err == nil) != c.ok || err != nil && !errors.Is(err, datapath.ErrActions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
