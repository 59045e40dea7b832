package datapathtest

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// manyFlows are n flows from ps[0] to ps[1], for UDP destination ports from 0.
func (b *bench) manyFlows(ps []datapath.Port, n int) (fs []datapath.Flow, keys []match.Key) {
	k := b.key(ps[0], udp4(1, 0))
	for i := range n {
		k.DstPort = uint16(i)
		keys = append(keys, k)
		fs = append(fs, datapath.Flow{Key: k, Actions: action.Physical{output(ps[1])}})
	}
	return fs, keys
}

func tableThousands(b *bench) {
	ps := b.ports(2)
	const many = 3000
	fs, keys := b.manyFlows(ps, many)
	n, err := b.dp.PutFlows(fs)
	b.must(err)
	all := b.flows()
	if n != many || len(all) != many {
		b.Fatalf("installed %d, read %d", n, len(all))
	}
	for _, k := range keys {
		if f, ok := all[k]; !ok || !slices.Equal(f.Actions, fs[0].Actions) || f.Packets != 0 {
			b.Fatalf("%+v: %v %+v", k, ok, f)
		}
	}
	for _, i := range []uint16{0, many / 2, many - 1} {
		b.send(ps[0], udp4(1, i))
		b.expect(ps[1], udp4(1, i))
	}
	b.must(b.dp.DelFlows(keys[:many-1]))
	if all := b.flows(); len(all) != 1 || all[keys[many-1]].Packets != 1 {
		b.Errorf("after deletion: %d flows", len(all))
	}
}

// tooMany is a flow with more outputs than any datapath need hold.
func (b *bench) tooMany(ps []datapath.Port, f datapath.Flow) datapath.Flow {
	f.Actions = slices.Repeat(action.Physical{output(ps[1])}, 5000)
	return f
}

func tablePartialFailure(b *bench) {
	ps := b.ports(2)
	fs, keys := b.manyFlows(ps, 5)
	fs[3] = b.tooMany(ps, fs[3])
	n, err := b.dp.PutFlows(fs)
	if n != 3 || !errors.Is(err, datapath.ErrActions) {
		b.Fatalf("PutFlows: %d %v", n, err)
	}
	all := b.flows()
	for i, k := range keys {
		if _, ok := all[k]; ok != (i < 3) {
			b.Errorf("flow %d installed: %v", i, ok)
		}
	}
}

func tableTooMany(b *bench) {
	ps := b.ports(2)
	fs, keys := b.manyFlows(ps, 1)
	b.put(ps[0], udp4(1, 0), output(ps[1]))
	if n, err := b.dp.PutFlows([]datapath.Flow{b.tooMany(ps, fs[0])}); n != 0 || !errors.Is(err, datapath.ErrActions) {
		b.Errorf("%d %v", n, err)
	}
	if f := b.flows()[keys[0]]; len(f.Actions) != 1 {
		b.Errorf("the flow that was there has %d actions", len(f.Actions))
	}
	b.send(ps[0], udp4(1, 0))
	b.expect(ps[1], udp4(1, 0))
	b.silent(ps[1])
}

// tableUnfit: what no packet of the key could undergo is refused at once.
func tableUnfit(b *bench) {
	ps := b.ports(2)
	frames := samples()
	for _, c := range []struct {
		frame string
		a     action.Action
	}{
		{"udp4", action.Action{Op: action.SetSrc, Addr: ip6A}},
		{"udp6", action.Action{Op: action.SetDst, Addr: ip4A}},
		{"arp", action.Action{Op: action.SetSrc, Addr: ip4A}},
		{"arp", action.Action{Op: action.DecTTL}},
		{"arp", action.Action{Op: action.CheckLen, Value: 1500}},
		{"udp4", action.Action{Op: action.CheckLen}},
		{"802.3", action.Action{Op: action.SetTOS, Value: 1}},
		{"gre4", action.Action{Op: action.SetDstPort, Value: 1}},
		{"echo4", action.Action{Op: action.SetSrcPort, Value: 1}},
		{"ns", action.Action{Op: action.SetDstPort, Value: 1}},
		{"udp4", action.Action{Op: action.PopVLAN}},
		{"udp4", action.Action{Op: action.Forward}},
	} {
		f := datapath.Flow{Key: b.key(ps[0], frames[c.frame]), Actions: action.Physical{c.a, output(ps[1])}}
		want := datapath.ErrActions
		if b.coarse(ps[0], frames[c.frame]) {
			want = datapath.ErrKey
		}
		if n, err := b.dp.PutFlows([]datapath.Flow{f}); n != 0 || !errors.Is(err, want) {
			b.Errorf("%s, %+v: %d %v", c.frame, c.a, n, err)
		}
	}
	b.refused(datapath.ErrActions, ps[0], frames["udp4"], action.Action{Op: action.DecTTL}, action.Action{Op: action.CheckLen, Value: 1500}, output(ps[1]))
	if n := len(b.flows()); n != 0 {
		b.Errorf("%d flows", n)
	}
}

// tableSCTPPorts: SCTP's checksum covers the whole packet, so a datapath may refuse to rewrite
// its ports in a flow; it must not send a wrong one. Executing always works.
func tableSCTPPorts(b *bench) {
	ps := b.ports(2)
	ip := packet.IP{Src: ip4A, Dst: ip4B}
	frame, want := packet.BuildSCTP(nil, eth, ip, 1, 2, 3, data), packet.BuildSCTP(nil, eth, ip, 1, 9, 3, data)
	f := datapath.Flow{Key: b.key(ps[0], frame), Actions: action.Physical{{Op: action.SetDstPort, Value: 9}, output(ps[1])}}
	switch _, err := b.dp.PutFlows([]datapath.Flow{f}); {
	case err == nil:
		b.send(ps[0], frame)
		b.expect(ps[1], want)
	case !errors.Is(err, datapath.ErrActions):
		b.Error(err)
	}
	es := []datapath.Exec{{Frame: frame, InPort: ps[0].No, Actions: f.Actions}}
	b.dp.Execute(es)
	b.must(es[0].Err)
	b.expect(ps[1], want)
}

func tableDump(b *bench) {
	ps := b.ports(3)
	want := map[match.Key]action.Physical{}
	add := func(f []byte, as ...action.Action) {
		want[b.put(ps[0], f, as...)] = as
	}
	for _, v6 := range []bool{false, true} {
		h := header{eth, packet.IP{Src: ip4A, Dst: ip4B}, 1, 2}
		if v6 {
			h.ip = packet.IP{Src: ip6A, Dst: ip6B}
		}
		var as []action.Action
		for _, r := range rewrites(v6) {
			as = append(as, r.a)
		}
		f := transports[0].build(h)
		add(f, append(slices.Clone(as), output(ps[1]))...)
		h.src = 7
		slices.Reverse(as) // the order is kept, whatever it is
		add(transports[0].build(h), append(append(slices.Clone(as[:3]), output(ps[1])), append(as[3:], output(ps[2]))...)...)
	}
	add(udp4(9, 9))
	add(udp4(9, 10), output(ps[1]), output(ps[2]), output(ps[0]))
	add(udp4(9, 11), action.Action{Op: action.PushVLAN, Value: 0x2005}, output(ps[1]))
	add(samples()["tagged udp4"], action.Action{Op: action.PopVLAN}, output(ps[1]))
	add(udp4(9, 12), action.Action{Op: action.DecTTL}, action.Action{Op: action.DecTTL}, output(ps[1]))
	for i, most := range []uint16{1, 1500, 65521, 65522, 65535} {
		check := action.Action{Op: action.CheckLen, Value: most}
		add(udp4(10, uint16(i)), check, action.Action{Op: action.DecTTL}, output(ps[1]))
		add(udp4(11, uint16(i)), check, output(ps[1]), output(ps[2]))
	}
	all := b.flows()
	if len(all) != len(want) {
		b.Errorf("%d flows, want %d", len(all), len(want))
	}
	for k, as := range want {
		f, ok := all[k]
		if !ok || !slices.Equal(f.Actions, as) {
			b.Errorf("%+v:\n got %+v\nwant %+v", k, f.Actions, as)
		}
		if f.Idle < 0 || f.Idle > time.Hour {
			b.Errorf("idle for %v", f.Idle)
		}
	}
}

func tableDumpStops(b *bench) {
	ps := b.ports(2)
	fs, _ := b.manyFlows(ps, 10)
	_, err := b.dp.PutFlows(fs)
	b.must(err)
	calls := 0
	b.must(b.dp.DumpFlows(func(*datapath.FlowInfo) bool { calls++; return calls < 4 }))
	if calls != 4 {
		b.Errorf("%d calls", calls)
	}
}

func tableTCPFlags(b *bench) {
	ps := b.ports(2)
	frame := func(flags uint8) []byte {
		return packet.BuildTCP(nil, eth, packet.IP{Src: ip4A, Dst: ip4B}, packet.TCP{SrcPort: 1, DstPort: 2, Flags: flags}, data)
	}
	k := b.put(ps[0], frame(0), output(ps[1]))
	for _, c := range []struct{ send, want uint8 }{
		{packet.FlagSYN, 0}, {packet.FlagACK | packet.FlagPSH, 0},
		{packet.FlagFIN | packet.FlagACK, packet.FlagFIN}, {packet.FlagACK, packet.FlagFIN},
		{packet.FlagRST, packet.FlagFIN | packet.FlagRST},
	} {
		b.send(ps[0], frame(c.send))
		b.expect(ps[1], frame(c.send))
		if got := b.flows()[k].TCPFlags; got != c.want {
			b.Errorf("after %#x: %#x, want %#x", c.send, got, c.want)
		}
	}
}

// tableConcurrent is for the race detector, and checks that nothing is lost.
func tableConcurrent(b *bench) {
	ps := b.ports(2)
	fs, keys := b.manyFlows(ps, 200)
	const sent = 200
	grant(ps[0], sent)
	var wg sync.WaitGroup
	var read, stop atomic.Int64
	for w := range b.dp.Workers() {
		wg.Go(func() {
			ms := []*datapath.Miss{{}, {}, {}}
			for stop.Load() == 0 {
				n, err := b.dp.ReadMisses(w, ms, time.Millisecond)
				if err != nil {
					b.Error(err)
					return
				}
				read.Add(int64(n))
				atomic.AddInt64(ps[0].Credit, int64(n))
			}
		})
	}
	var writers sync.WaitGroup
	for half := range 2 {
		mine := fs[half*100 : half*100+100]
		writers.Go(func() {
			for range 3 {
				if _, err := b.dp.PutFlows(mine); err != nil {
					b.Error(err)
				}
				if err := b.dp.DumpFlows(func(f *datapath.FlowInfo) bool { return len(f.Actions) == 1 }); err != nil {
					b.Error(err)
				}
				if err := b.dp.DelFlows(keys[half*100 : half*100+100]); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range sent {
		b.rig.Send(b, ps[0].Interface, udp4(1, uint16(i)))
	}
	writers.Wait()
	out := int64(0)
	for deadline := time.Now().Add(patience); read.Load()+out < sent; {
		if _, ok := b.rig.Recv(b, ps[1].Interface, glance); ok {
			out++
		} else if time.Now().After(deadline) {
			b.Errorf("sent %d, missed %d, forwarded %d", sent, read.Load(), out)
			break
		}
		runtime.Gosched()
	}
	stop.Store(1)
	wg.Wait()
	if c := atomic.LoadInt64(ps[0].Credit); c != sent {
		b.Errorf("credit %d of %d after all were given back", c, sent)
	}
	if n := len(b.flows()); n != 0 {
		b.Errorf("%d flows left", n)
	}
}
