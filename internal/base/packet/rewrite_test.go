package packet

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// apply runs actions on a copy of f and returns the frame of each output.
func apply(f []byte, gso GSO, as ...action.Action) (out [][]byte, err error) {
	r := Rewriter{Emit: func(_ uint32, _ *action.Action, frame []byte) { out = append(out, bytes.Clone(frame)) }}
	return out, r.Apply(bytes.Clone(f), gso, as)
}

var output = action.Action{Op: action.Output, Port: 1}

// genActions draws rewrites that suit v, without VLANs and outputs.
func genActions(t *rapid.T, v *View) []action.Action {
	ops := []action.Op{action.SetEthSrc, action.SetEthDst, action.SetSrc, action.SetDst, action.SetTOS}
	if v.TTL > 4 {
		ops = append(ops, action.DecTTL)
	}
	if v.HasPorts() {
		ops = append(ops, action.SetSrcPort, action.SetDstPort)
	} else if v.known() {
		ops = append(ops, action.SetDstPort)
	}
	as := make([]action.Action, rapid.IntRange(1, 4).Draw(t, "n"))
	for i := range as {
		as[i] = action.Action{Op: rapid.SampledFrom(ops).Draw(t, "op"), MAC: genMAC(t, "mac"),
			Value: rapid.Uint16().Draw(t, "value"), Addr: genAddr(t, v.Is6(), "addr")}
		if as[i].Op == action.SetTOS {
			as[i].Value &= 0xff
		}
	}
	return as
}

// slowApply is the oracle: it says what the key and TTL must be.
func slowApply(k match.Key, ttl uint8, as []action.Action) (match.Key, uint8) {
	for _, a := range as {
		switch a.Op {
		case action.SetEthSrc:
			k.EthSrc = a.MAC
		case action.SetEthDst:
			k.EthDst = a.MAC
		case action.SetSrc:
			k.Src = a.Addr
		case action.SetDst:
			k.Dst = a.Addr
		case action.SetTOS:
			k.TOS = uint8(a.Value)
		case action.DecTTL:
			ttl--
		case action.SetSrcPort:
			k.SrcPort = a.Value
		case action.SetDstPort:
			k.DstPort = a.Value
		}
	}
	return k, ttl
}

// TestApplyKeepsChecksums: rewriting incrementally gives the very bytes that filling
// the checksum anew gives, for valid and partial ones, and wrong stays wrong.
func TestApplyKeepsChecksums(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := genFrame(rt)
		v := mustParse(rt, f)
		var gso GSO
		state := ChecksumState(&v)
		switch rapid.IntRange(0, 2).Draw(rt, "state") {
		case 1:
			if state == ChecksumValid && v.Key.Proto != ProtoICMP {
				FillPartial(&v)
				gso.Size, state = 1000, ChecksumPartial
			}
		case 2:
			if state == ChecksumValid {
				f[v.L4+ChecksumOffset(&v)] ^= 0x5a
				state = ChecksumWrong
			}
		}
		as := genActions(rt, &v)
		out, err := apply(f, gso, append(as, output)...)
		if err != nil || len(out) != 1 {
			rt.Fatal(err, len(out))
		}
		got := mustParse(rt, out[0])
		want, ttl := slowApply(v.Key, v.TTL, as)
		if got.Key != want || got.TTL != ttl {
			rt.Fatalf("\n got %+v %d\nwant %+v %d", got.Key, got.TTL, want, ttl)
		}
		if got.Is4() && Checksum(out[0][got.L3:got.L3+IPv4Len]) != 0 {
			rt.Fatal("IPv4 header checksum")
		}
		again := bytes.Clone(out[0])
		w := mustParse(rt, again)
		switch state {
		case ChecksumValid:
			FillChecksum(&w)
		case ChecksumPartial:
			FillPartial(&w)
		case ChecksumWrong:
			if s := ChecksumState(&w); s == ChecksumValid {
				rt.Fatal("a wrong checksum became valid")
			}
			return
		}
		if !bytes.Equal(again, out[0]) {
			rt.Fatalf("%v:\n got % x\nwant % x", state, out[0], again)
		}
	})
}

func TestApplyIsCumulative(t *testing.T) {
	a := func(op action.Op, x uint16) action.Action {
		return action.Action{Op: op, Value: x, Addr: ip4A, MAC: macA}
	}
	out, err := apply(udp4(), GSO{}, output, a(action.SetDstPort, 53), output, a(action.DecTTL, 0), a(action.SetDst, 0), output)
	if err != nil || len(out) != 3 {
		t.Fatal(err, len(out))
	}
	for i, want := range []struct {
		port uint16
		ttl  uint8
		dst  match.Addr
	}{{2000, 64, ip4B}, {53, 64, ip4B}, {53, 63, ip4A}} {
		v := mustParse(t, out[i])
		if v.Key.DstPort != want.port || v.TTL != want.ttl || v.Key.Dst != want.dst || ChecksumState(&v) != ChecksumValid {
			t.Errorf("%d: %+v", i, v.Key)
		}
	}
}

func TestApplyVLAN(t *testing.T) {
	push := func(tci uint16) action.Action { return action.Action{Op: action.PushVLAN, Value: tci} }
	pop := action.Action{Op: action.PopVLAN}
	f := udp4()
	out, err := apply(f, GSO{}, push(0x2005), output, action.Action{Op: action.SetDst, Addr: ip4A}, action.Action{Op: action.DecTTL}, output,
		push(6), output, pop, pop, output, push(7), pop, push(1), push(2), push(3), push(4), push(5), output, pop, pop, pop, pop, pop, output)
	if err != nil || len(out) != 6 {
		t.Fatal(err, len(out))
	}
	v := mustParse(t, out[0])
	if v.Key.VLAN != 0x3005 || v.Key.EthType != EthTypeIPv4 || !bytes.Equal(v.Packet(), f[EthLen:]) || v.Key.EthDst != macB || v.Key.EthSrc != macA {
		t.Errorf("% x", out[0])
	}
	v = mustParse(t, out[1])
	if v.Key.VLAN != 0x3005 || v.Key.Dst != ip4A || v.TTL != 63 || ChecksumState(&v) != ChecksumValid {
		t.Errorf("% x", out[1])
	}
	rewritten := v.Packet()
	v = mustParse(t, out[2])
	if v.Key.VLAN != 0x1006 || v.Key.EthType != EthTypeVLAN || len(out[2]) != len(f)+8 {
		t.Errorf("% x", out[2])
	}
	for _, i := range []int{3, 5} {
		v = mustParse(t, out[i])
		if v.Key.VLAN != 0 || !bytes.Equal(v.Packet(), rewritten) || len(out[i]) != len(f) || v.Key.EthDst != macB || v.Key.EthSrc != macA {
			t.Errorf("%d: % x", i, out[i])
		}
	}
	if want := len(f) + 5*VLANLen; len(out[4]) != want || !bytes.HasSuffix(out[4], rewritten) {
		t.Errorf("% x", out[4])
	}
	for i, tci := range []byte{5, 4, 3, 2, 1} {
		if got := out[4][12+4*i : 16+4*i]; !bytes.Equal(got, []byte{0x81, 0, 0, tci}) {
			t.Errorf("tag %d: % x", i, got)
		}
	}
}

func TestApplyFragments(t *testing.T) {
	first := with(udp4(), 20, 0x20)
	v := mustParse(t, first)
	sum := be16(first[v.L4+6:])
	out, err := apply(first, GSO{}, action.Action{Op: action.SetSrc, Addr: ip4B}, action.Action{Op: action.SetDstPort, Value: 99}, output)
	if err != nil {
		t.Fatal(err)
	}
	want := UpdateChecksum(UpdateChecksum(sum, ip4A[12:], ip4B[12:]), []byte{7, 0xd0}, []byte{0, 99})
	if v = mustParse(t, out[0]); be16(out[0][v.L4+6:]) != want || v.Key.DstPort != 99 {
		t.Errorf("first fragment: % x, want checksum %#x", out[0], want)
	}

	later := laterFragment()
	out, err = apply(later, GSO{}, action.Action{Op: action.SetSrc, Addr: ip4B}, action.Action{Op: action.SetDstPort, Value: 99}, output)
	if err != nil || !bytes.Equal(out[0][34:], later[34:]) {
		t.Errorf("later fragment's payload was touched: %v % x", err, out)
	}
}

func TestApplyKeepsUDPZero(t *testing.T) {
	f := udp4()
	put16(f[40:], 0)
	out, err := apply(f, GSO{}, action.Action{Op: action.SetSrc, Addr: ip4B}, action.Action{Op: action.SetDstPort, Value: 9}, output)
	if err != nil || be16(out[0][40:]) != 0 {
		t.Errorf("%v % x", err, out)
	}
}

// TestApplyUDPZeroSum: a sum that comes out as 0 is sent as 0xffff, as 0 would mean that
// there is none (RFC 768).
func TestApplyUDPZeroSum(t *testing.T) {
	f := udp4()
	port := Fold(uint64(2000) + uint64(be16(f[40:]))) // takes the whole sum away
	out, err := apply(f, GSO{}, action.Action{Op: action.SetDstPort, Value: port}, output)
	if err != nil || be16(out[0][40:]) != 0xffff {
		t.Errorf("%v % x", err, out)
	}
	if v := mustParse(t, BuildUDP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, 1000, port, []byte("hello"))); be16(v.Frame[40:]) != 0xffff {
		t.Errorf("built: % x", v.Frame)
	}
}

func TestApplyErrors(t *testing.T) {
	arp := BuildARPRequest(nil, macA, ip4A, ip4B)
	icmpErr := BuildICMP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, ICMP{Type: 3}, nil)
	sctpFrag := with(BuildSCTP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, 1, 2, 3, nil), 20, 0x20)
	for _, c := range []struct {
		name  string
		frame []byte
		a     action.Action
		want  error
	}{
		{"malformed", udp4()[:20], output, ErrMalformed},
		{"v6 address into v4", udp4(), action.Action{Op: action.SetSrc, Addr: ip6A}, ErrRewrite},
		{"address into ARP", arp, action.Action{Op: action.SetDst, Addr: ip4A}, ErrRewrite},
		{"ToS of ARP", arp, action.Action{Op: action.SetTOS}, ErrRewrite},
		{"TTL of ARP", arp, action.Action{Op: action.DecTTL}, ErrRewrite},
		{"port of ARP", arp, action.Action{Op: action.SetSrcPort}, ErrRewrite},
		{"TTL 1", with(udp4(), 22, 1), action.Action{Op: action.DecTTL}, ErrTTL},
		{"pop untagged", udp4(), action.Action{Op: action.PopVLAN}, ErrRewrite},
		{"id of an ICMP error", icmpErr, action.Action{Op: action.SetDstPort}, ErrRewrite},
		{"source port of ICMP", icmpErr, action.Action{Op: action.SetSrcPort}, ErrRewrite},
		{"port of SCTP fragment", sctpFrag, action.Action{Op: action.SetDstPort, Value: 9}, ErrRewrite},
		{"virtual output", udp4(), action.Action{Op: action.Forward}, ErrRewrite},
	} {
		out, err := apply(c.frame, GSO{}, c.a, output)
		if !errors.Is(err, c.want) || len(out) != 0 {
			t.Errorf("%s: %v, %d outputs", c.name, err, len(out))
		}
	}
	if out, err := apply(udp4(), GSO{}, output, action.Action{Op: action.PopVLAN}); err == nil || len(out) != 1 {
		t.Errorf("outputs before an error go out: %v, %d", err, len(out))
	}
}

var natActions = action.Physical{
	{Op: action.SetEthSrc, MAC: macB}, {Op: action.SetEthDst, MAC: macA}, {Op: action.DecTTL},
	{Op: action.SetSrc, Addr: ip4B}, {Op: action.SetDst, Addr: ip4A}, {Op: action.SetTOS, Value: 8},
	{Op: action.SetSrcPort, Value: 4000}, {Op: action.PushVLAN, Value: 5}, {Op: action.Output, Port: 1},
	{Op: action.PopVLAN}, {Op: action.Tunnel, Port: 2, Key: 9, Addr: ip4A},
}

func TestApplyDoesNotAllocate(t *testing.T) {
	f, work := udp4(), make([]byte, 100)
	var plain, tunnel int
	r := Rewriter{Emit: func(port uint32, tun *action.Action, frame []byte) {
		switch {
		case port == 1 && tun == nil:
			plain++
		case port == 2 && tun.Key == 9:
			tunnel++
		}
	}}
	if n := testing.AllocsPerRun(100, func() {
		if err := r.Apply(work[:copy(work, f)], GSO{}, natActions); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Error(n)
	}
	if plain != 101 || tunnel != 101 {
		t.Error(plain, tunnel)
	}
}

func FuzzApply(f *testing.F) {
	f.Add(udp4(), uint16(0), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	f.Add(BuildTCP(nil, ethA, IP{Src: ip6A, Dst: ip6B}, TCP{}, nil), uint16(1000), []byte{3, 4, 7, 9, 9, 8, 10, 10})
	f.Add(BuildSCTP(nil, ethA, IP{Src: ip4A, Dst: ip4B}, 1, 2, 3, nil), uint16(0), []byte{3, 4, 7})
	f.Add(laterFragment(), uint16(0), []byte{9, 3, 6, 7, 10})
	f.Fuzz(func(t *testing.T, frame []byte, size uint16, ops []byte) {
		v, reason := Parse(frame, 0)
		var want ChecksumStatus
		if reason == drop.None {
			want = ChecksumState(&v)
			if NeedsChecksum(&v, GSO{Size: size}) && want != ChecksumPartial {
				size = 0 // a GSO frame is partial by definition
			}
		}
		if len(ops) > 20 {
			ops = ops[:20]
		}
		as := make([]action.Action, 0, len(ops)+1)
		for i, b := range ops {
			a := action.Action{Op: action.Op(b % 14), Value: uint16(b)*7 + uint16(i), MAC: macA, Addr: ip4A}
			if reason == drop.None && v.Is6() {
				a.Addr = ip6A
			}
			as = append(as, a)
		}
		r := Rewriter{Emit: func(_ uint32, _ *action.Action, out []byte) {
			w, reason := Parse(out, 0)
			if reason != drop.None || w.L4 == 0 {
				return // popping a tag may uncover an opaque or broken packet
			}
			// 16 bits: wrong or partial can look valid by chance, never the reverse.
			if got := ChecksumState(&w); w.L3-v.L3 == len(out)-len(frame) && got != want && got != ChecksumValid {
				t.Errorf("checksum was %v, is %v", want, got)
			}
		}}
		if err := r.Apply(bytes.Clone(frame), GSO{Size: size}, append(as, output)); err != nil && reason == drop.None &&
			!errors.Is(err, ErrRewrite) && !errors.Is(err, ErrTTL) {
			t.Error(err)
		}
	})
}

func BenchmarkApply(b *testing.B) {
	f, work := udp4(), make([]byte, 100)
	r := Rewriter{Emit: func(uint32, *action.Action, []byte) {}}
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Apply(work[:copy(work, f)], GSO{}, natActions); err != nil {
			b.Fatal(err)
		}
	}
}
