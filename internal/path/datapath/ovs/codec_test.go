package ovs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

func addr(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }

// drawKey makes keys that the kernel tells apart.
func drawKey(t *rapid.T, ports uint32) (k match.Key) {
	mac := rapid.Custom(func(t *rapid.T) (m match.MAC) {
		copy(m[:], rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
		return m
	})
	k.InPort = rapid.Uint32Range(1, ports).Draw(t, "port")
	k.EthSrc, k.EthDst = mac.Draw(t, "src"), mac.Draw(t, "dst")
	if rapid.Bool().Draw(t, "tagged") {
		k.VLAN = rapid.Uint16().Draw(t, "tci") | match.VLANPresent
	}
	k.EthType = rapid.SampledFrom([]uint16{packet.EthTypeIPv4, packet.EthTypeIPv6, packet.EthTypeARP, 0x88cc}).Draw(t, "type")
	v6 := k.EthType == packet.EthTypeIPv6
	ip := rapid.Custom(func(t *rapid.T) (a match.Addr) {
		if v6 {
			copy(a[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr"))
			return a
		}
		return packet.Addr4(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr"))
	})
	switch k.EthType {
	case packet.EthTypeARP:
		k.Proto = rapid.Uint8Range(1, 255).Draw(t, "op")
		k.Src, k.Dst = ip.Draw(t, "spa"), ip.Draw(t, "tpa")
		return k
	case 0x88cc:
		return k
	}
	k.Src, k.Dst = ip.Draw(t, "src"), ip.Draw(t, "dst")
	k.TOS = rapid.Uint8().Draw(t, "tos")
	k.Frag = rapid.SampledFrom([]uint8{match.FragNone, match.FragNone, match.FragFirst, match.FragLater}).Draw(t, "frag")
	if v6 && k.Frag == match.FragLater {
		k.Frag = match.FragNone
	}
	k.Proto = rapid.SampledFrom([]uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoICMP, packet.ProtoICMPv6, 47}).Draw(t, "proto")
	if k.Frag == match.FragLater {
		return k
	}
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		k.SrcPort, k.DstPort = rapid.Uint16().Draw(t, "sport"), rapid.Uint16().Draw(t, "dport")
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if v6 == (k.Proto == packet.ProtoICMPv6) {
			types := []uint16{3, 5, 11, 135, 136, 143}
			k.SrcPort = rapid.SampledFrom(types).Draw(t, "icmp type")<<8 | rapid.Uint16Range(0, 255).Draw(t, "icmp code")
		}
	}
	return k
}

// drawActions makes lists that suit the key, in normal form.
func drawActions(t *rapid.T, k *match.Key, ports uint32) (as action.Physical) {
	output := func() {
		as = append(as, action.Action{Op: action.Output, Port: rapid.Uint32Range(1, ports).Draw(t, "output")})
	}
	late := k.Frag == match.FragLater
	if check := (action.Action{Op: action.CheckLen, Value: rapid.Uint16Min(1).Draw(t, "length")}); rapid.Bool().Draw(t, "checked") && packet.Check(k, action.Physical{check}) == nil {
		as = append(as, check)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "outputs") {
		for _, op := range rapid.Permutation([]action.Op{action.SetEthSrc, action.SetEthDst, action.SetSrc, action.SetDst, action.SetTOS,
			action.SetSrcPort, action.SetDstPort, action.DecTTL, action.DecTTL, action.PushVLAN}).Draw(t, "order") {
			if !rapid.Bool().Draw(t, "use") || op == action.DecTTL && i > 0 || late && (op == action.SetSrcPort || op == action.SetDstPort) {
				continue
			}
			a := action.Action{Op: op}
			switch op {
			case action.SetEthSrc, action.SetEthDst:
				copy(a.MAC[:], rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
			case action.SetSrc, action.SetDst:
				a.Addr = addr("192.0.2.1")
				if k.EthType == packet.EthTypeIPv6 {
					a.Addr = addr("2001:db8::1")
				}
			case action.SetTOS:
				a.Value = rapid.Uint16Range(0, 255).Draw(t, "tos")
			case action.SetSrcPort, action.SetDstPort:
				a.Value = rapid.Uint16().Draw(t, "port")
			case action.PushVLAN:
				a.Value = rapid.Uint16().Draw(t, "tci") &^ match.VLANPresent
			}
			if packet.Check(k, action.Physical{a}) == nil {
				as = append(as, a)
			}
		}
		output()
	}
	return as
}

const testPID = 1<<30 | 7

func TestKeyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := drawKey(t, maxPorts-1)
		tunnel := rapid.Bool().Draw(t, "tunnel")
		if tunnel {
			k.TunKey = rapid.Uint32Range(0, 1<<24-1).Draw(t, "vni")
		}
		if err := holds(&k); err != nil {
			t.Fatal(err)
		}
		var key, mask, scratch message
		keyWriter{&key, false}.key(&k, tunnel)
		keyWriter{&mask, true}.key(&k, tunnel)
		if got, err := parseKey(key.b, mask.b, &scratch); err != nil || got != k {
			t.Fatalf("%v\n got %+v\nwant %+v", err, got, k)
		}
	})
}

func TestActionsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := drawKey(t, 100)
		as := drawActions(t, &k, 100)
		var m message
		if err := m.actions(&k, as, testPID); err != nil {
			t.Fatal(err)
		}
		got, err := parseActions(nil, m.b)
		if err != nil || !slices.Equal(got, as) {
			t.Fatalf("%v\n got %+v\nwant %+v", err, got, as)
		}
	})
}

// TestGolden pins the bytes, which were written down from linux/openvswitch.h by hand.
func TestGolden(t *testing.T) {
	k := match.Key{InPort: 3, EthSrc: match.MAC{1, 2, 3, 4, 5, 6}, EthDst: match.MAC{7, 8, 9, 10, 11, 12}, EthType: packet.EthTypeIPv4, VLAN: 0x1005,
		Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Proto: packet.ProtoUDP, TOS: 4, SrcPort: 0x1234, DstPort: 53}
	var key, mask, as message
	keyWriter{&key, false}.key(&k, false)
	keyWriter{&mask, true}.key(&k, false)
	var check message
	if err := check.actions(&k, action.Physical{{Op: action.CheckLen, Value: 1500}, {Op: action.DecTTL}, {Op: action.Output, Port: 5}}, 0x40000003); err != nil {
		t.Fatal(err)
	}
	if err := as.actions(&k, action.Physical{{Op: action.DecTTL}, {Op: action.SetEthDst, MAC: match.MAC{1, 1, 1, 1, 1, 1}},
		{Op: action.PushVLAN, Value: 9}, {Op: action.PopVLAN}, {Op: action.Output, Port: 5},
		{Op: action.Tunnel, Port: 6, Key: 0xabc, Addr: addr("192.0.2.9")}}, 0x40000003); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		got        []byte
	}{
		{"key", "08000300" + "03000000" + "10000400" + "010203040506" + "0708090a0b0c" + "06000600" + "81000000" + "06000500" + "10050000" +
			"24000100" + "06000600" + "08000000" + "10000700" + "0a000001" + "0a000002" + "11040000" + "08000a00" + "12340035", key.b},
		{"mask", "08000300" + "ffffffff" + "10000400" + "ffffffffffff" + "ffffffffffff" + "06000600" + "ffff0000" + "06000500" + "ffff0000" +
			"24000100" + "06000600" + "ffff0000" + "10000700" + "ffffffff" + "ffffffff" + "ffff00ff" + "08000a00" + "ffffffff", mask.b},
		{"actions", "1c001700" + "18000100" + "14000200" + "08000100" + "03000040" + "08000200" + "00000000" +
			"20000b00" + "1c000400" + "000000000000" + "010101010101" + "000000000000" + "ffffffffffff" +
			"08000400" + "81001009" + "04000500" + "08000100" + "05000000" +
			"24000300" + "20001000" + "0c000000" + "0000000000000abc" + "08000200" + "c0000209" + "05000400" + "40000000" +
			"08000100" + "06000000", as.b},
		{"checked actions", "4c001500" + "06000100" + "ea050000" + "18000200" + "14000200" + "08000100" + "03000040" + "06000200" + "dc050000" +
			"28000300" + "1c001700" + "18000100" + "14000200" + "08000100" + "03000040" + "08000200" + "00000000" + "08000100" + "05000000", check.b},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestGoldenTunnelKey does so for the flows of tunnel keys: to OVS_TUNNEL_KEY_ATTR_ID and the port alone, over IPv4 and over IPv6.
func TestGoldenTunnelKey(t *testing.T) {
	const ether, zeros = "10000400" + "000000000000" + "000000000000", "00000000" + "00000000" + "00000000"
	for family, want := range []struct{ key, mask string }{
		{"20001000" + "0c000000" + "0000000000abcdef" + "08000200" + "7f000001" + "05000400" + "40000000" + "08000300" + "04000000" + ether,
			"20001000" + "0c000000" + "ffffffffffffffff" + "08000200" + "00000000" + "05000400" + "00000000" + "08000300" + "ffffffff" + ether},
		{"2c001000" + "0c000000" + "0000000000abcdef" + "14000d00" + zeros + "00000001" + "05000400" + "40000000" + "08000300" + "04000000" + ether,
			"2c001000" + "0c000000" + "ffffffffffffffff" + "14000d00" + zeros + "00000000" + "05000400" + "00000000" + "08000300" + "ffffffff" + ether},
	} {
		var key, mask message
		keyWriter{&key, false}.tunnelKey(4, 0xabcdef, family)
		keyWriter{&mask, true}.tunnelKey(4, 0xabcdef, family)
		if got := hex.EncodeToString(key.b); got != want.key {
			t.Errorf("family %d, key:\n got %s\nwant %s", family, got, want.key)
		}
		if got := hex.EncodeToString(mask.b); got != want.mask {
			t.Errorf("family %d, mask:\n got %s\nwant %s", family, got, want.mask)
		}
		in, k, port, ok := parseTunnelFlow(tunnelFlowMessage(4, 0xabcdef, 9, family)[headerLen:])
		if !ok || in != 4 || k != 0xabcdef || port != 9 {
			t.Errorf("family %d is read as port %d, key %#x, to %d, %v", family, in, k, port, ok)
		}
	}
}

func TestRefused(t *testing.T) {
	udp := match.Key{InPort: 1, EthType: packet.EthTypeIPv4, Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Proto: packet.ProtoUDP}
	later := udp
	later.Frag = match.FragLater
	out := action.Action{Op: action.Output, Port: 2}
	for name, c := range map[string]struct {
		k  match.Key
		as action.Physical
	}{
		"late TTL":          {udp, action.Physical{out, {Op: action.DecTTL}, out}},
		"late length":       {udp, action.Physical{{Op: action.DecTTL}, {Op: action.CheckLen, Value: 1500}, out}},
		"no length":         {udp, action.Physical{{Op: action.CheckLen}, out}},
		"two lengths":       {udp, action.Physical{{Op: action.CheckLen, Value: 1500}, {Op: action.CheckLen, Value: 1400}, out}},
		"ports of fragment": {later, action.Physical{{Op: action.SetDstPort, Value: 1}, out}},
		"other family":      {udp, action.Physical{{Op: action.SetDst, Addr: addr("::1")}, out}},
		"virtual":           {udp, action.Physical{{Op: action.Forward}}},
		"too long":          {udp, slices.Repeat(action.Physical{out}, 5000)},
		"too many TTLs":     {udp, append(slices.Repeat(action.Physical{{Op: action.DecTTL}}, 256), out)},
	} {
		if err := new(message).actions(&c.k, c.as, testPID); !errors.Is(err, datapath.ErrActions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestForeign: flows that somebody else has put are recognised, not misread.
func TestForeign(t *testing.T) {
	k := match.Key{InPort: 1, EthType: packet.EthTypeIPv4, Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Proto: packet.ProtoTCP, SrcPort: 1, DstPort: 2}
	var key, mask, wide, scratch message
	keyWriter{&key, false}.key(&k, false)
	keyWriter{&mask, true}.key(&k, false)
	wide.u32(keyInPort, 1<<32-1)
	marked := append(slices.Clone(key.b), 8, 0, 15, 0, 1, 0, 0, 0)   // OVS_KEY_ATTR_SKB_MARK
	unmarked := append(slices.Clone(key.b), 8, 0, 15, 0, 0, 0, 0, 0) // as the kernel adds it
	newer := append(slices.Clone(key.b), 8, 0, 99, 0, 0, 0, 0, 0)    // of a newer kernel
	for name, c := range map[string]struct {
		key, mask []byte
		want      error
	}{
		"ours": {key.b, mask.b, nil}, "unmarked": {unmarked, mask.b, nil}, "newer kernel": {newer, mask.b, nil},
		"wide mask": {key.b, wide.b, errForeign}, "mark": {marked, mask.b, errForeign}, "no mask": {key.b, nil, errForeign},
	} {
		if _, err := parseKey(c.key, c.mask, &scratch); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"recirculate": {8, 0, 6, 0, 1, 0, 0, 0}, "set unmasked": {20, 0, 3, 0, 16, 0, 4, 0, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6},
		"dec ttl of somebody else": {4, 0, 23, 0}, "short output": {6, 0, 1, 0, 1, 0, 0, 0},
		"length of somebody else": {4, 0, 21, 0}, "length, then more": append(checked(0xea, 5), 8, 0, 1, 0, 1, 0, 0, 0),
		"another length than ours": checked(0xeb, 5),
	} {
		if _, err := parseActions(nil, b); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	if as, err := parseActions(nil, checked(0xea, 5)); err != nil || !slices.Equal(as, action.Physical{{Op: action.CheckLen, Value: 1500}, {Op: action.PopVLAN}}) {
		t.Errorf("ours: %v, %v", as, err)
	}
}

// checked is a CheckLen of 1500, of which the kernel has been told so much.
func checked(lo, hi byte) []byte {
	return []byte{36, 0, 21, 0, 6, 0, 1, 0, lo, hi, 0, 0, 16, 0, 2, 0, 12, 0, 2, 0, 6, 0, 2, 0, 0xdc, 5, 0, 0, 8, 0, 3, 0, 4, 0, 5, 0}
}

func TestRestoreTTL(t *testing.T) {
	for _, ip := range []packet.IP{{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), TTL: 5}, {Src: addr("fd00::1"), Dst: addr("fd00::2"), TTL: 5}} {
		want := packet.BuildUDP(nil, packet.Ether{}, ip, 1, 2, []byte("x"))
		ip.TTL = 1
		got := packet.BuildUDP(nil, packet.Ether{}, ip, 1, 2, []byte("x"))
		restoreTTL(got, 4)
		if !bytes.Equal(got, want) {
			t.Errorf("\n got % x\nwant % x", got, want)
		}
	}
}

// upcallMessage is what the kernel sends for a packet that misses.
func upcallMessage(cmd uint8, frame, note []byte) []byte {
	var m message
	at := m.begin(77, cmd, 0, 0, 5)
	m.attr(packetPacket, frame)
	if note != nil {
		m.attr(packetUserdata, note)
	}
	m.end(at)
	return m.b
}

func FuzzMiss(f *testing.F) {
	frame := packet.BuildUDP(nil, packet.Ether{}, packet.IP{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), TTL: 1}, 1, 2, nil)
	f.Add(upcallMessage(packetMiss, frame, nil))
	f.Add(upcallMessage(packetAction, frame, []byte{1, 0, 0, 0}))
	f.Add(upcallMessage(packetAction, frame, []byte{0xdc, 5}))
	f.Add([]byte{16, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		b = slices.Clone(b)
		var m datapath.Miss
		if parseMiss(&m, b, 77, 9, true) == nil && (m.Key.InPort != 9 || len(m.Frame) < packet.EthLen) {
			t.Fatalf("%+v", m)
		}
	})
}

// FuzzFlow: whatever is read as a flow of ours would be written with the same meaning.
func FuzzFlow(f *testing.F) {
	k := match.Key{InPort: 1, EthType: packet.EthTypeIPv4, VLAN: 0x1001, Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Proto: packet.ProtoTCP}
	var m message
	m.flowKey(&k, false)
	at := m.nest(flowMask)
	keyWriter{&m, true}.key(&k, false)
	m.close(at)
	at = m.nest(flowActions)
	if err := m.actions(&k, action.Physical{{Op: action.CheckLen, Value: 1400}, {Op: action.DecTTL}, {Op: action.Output, Port: 3}}, testPID); err != nil {
		f.Fatal(err)
	}
	m.close(at)
	f.Add(m.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var info datapath.FlowInfo
		var scratch, out message
		if parseFlow(&info, b, 0, &scratch) != nil || holds(&info.Key) != nil {
			return
		}
		if out.actions(&info.Key, info.Actions, testPID) != nil {
			return
		}
		as, err := parseActions(nil, out.b)
		if err != nil || !slices.Equal(as, info.Actions) {
			t.Fatalf("%v: %+v became %+v", err, info.Actions, as)
		}
	})
}

func TestSplitMalformed(t *testing.T) {
	for _, b := range [][]byte{{}, {1}, make([]byte, 15), make([]byte, 16), append([]byte{255, 0, 0, 0}, make([]byte, 12)...)} {
		if _, _, err := split(b); err == nil {
			t.Errorf("% x is a message", b)
		}
	}
	if err := (&reply{typ: unix.NLMSG_ERROR, body: []byte{1}}).errno(); err == nil {
		t.Error("a short error is none")
	}
}

// FuzzKey: a key that is read as ours is written as one that is read the same.
func FuzzKey(f *testing.F) {
	for _, c := range []struct {
		k      match.Key
		tunnel bool
	}{
		{match.Key{InPort: 1, EthType: packet.EthTypeIPv4, VLAN: 0x1001, Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Proto: packet.ProtoTCP}, false},
		{match.Key{InPort: 2, EthType: packet.EthTypeIPv6, Src: addr("fd00::1"), Dst: addr("fd00::2"), Proto: packet.ProtoICMPv6, SrcPort: 135 << 8, TunKey: 5}, true},
		{match.Key{InPort: 3, EthType: packet.EthTypeARP, Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Proto: 1}, false},
	} {
		var key, mask message
		keyWriter{&key, false}.key(&c.k, c.tunnel)
		keyWriter{&mask, true}.key(&c.k, c.tunnel)
		f.Add(key.b, mask.b)
	}
	f.Fuzz(func(t *testing.T, key, mask []byte) {
		var again, full, scratch message
		k, err := parseKey(key, mask, &scratch)
		if err != nil || holds(&k) != nil {
			return
		}
		tunnel := find(key, keyTunnel) != nil
		keyWriter{&again, false}.key(&k, tunnel)
		keyWriter{&full, true}.key(&k, tunnel)
		got, err := parseKey(again.b, full.b, &scratch)
		if err != nil || got != k {
			t.Fatalf("%v\n got %+v\nwant %+v", err, got, k)
		}
	})
}

// FuzzMessages: whatever the kernel, or a newer one, answers is walked to its end or refused.
func FuzzMessages(f *testing.F) {
	f.Add(upcallMessage(packetMiss, []byte{1, 2, 3}, []byte{4}))
	f.Add(tunnelFlowMessage(4, 0xabcdef, 9, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			r, rest, err := split(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatalf("%d bytes left of %d", len(rest), len(b))
			}
			b = rest
			_ = r.errno()
			_, _ = parseVport(&r)
			if _, _, as, err := r.payload(); err == nil {
				if in, key, port, ok := parseTunnelFlow(as); ok {
					again := tunnelFlowMessage(in, key, port, 0)
					if i, k, p, ok := parseTunnelFlow(again[headerLen:]); !ok || i != in || k != key || p != port {
						t.Fatalf("port %d, key %#x, to %d became %d, %#x, %d, %v", in, key, port, i, k, p, ok)
					}
				}
			}
		}
	})
}

// tunnelFlowMessage is a flow of a tunnel key as the kernel dumps it.
func tunnelFlowMessage(in, key, port uint32, family int) []byte {
	var m message
	start := m.begin(77, cmdNew, 0, 0, 5)
	at := m.nest(flowKey)
	keyWriter{&m, false}.tunnelKey(in, key, family)
	m.close(at)
	at = m.nest(flowMask)
	keyWriter{&m, true}.tunnelKey(in, key, family)
	m.close(at)
	at = m.nest(flowActions)
	m.u32(actOutput, port)
	m.close(at)
	m.end(start)
	return m.b
}
