package datapathtest

import (
	"bytes"
	"errors"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

func executeRewrites(b *bench) {
	ps := b.ports(2)
	rewriteCases(func(name string, frame, want []byte, as []action.Action) {
		es := []datapath.Exec{{Frame: frame, InPort: ps[0].No, Actions: append(as, output(ps[1]))}}
		b.dp.Execute(es)
		if es[0].Err != nil {
			b.Fatalf("%s: %v", name, es[0].Err)
		}
		b.expectAs(name, ps[1], want)
	})
	if n := len(b.flows()); n != 0 {
		b.Errorf("%d flows", n)
	}
}

func executeBatch(b *bench) {
	ps := b.ports(3)
	const gone = 1 << 20
	exec := func(f []byte, as ...action.Action) datapath.Exec {
		return datapath.Exec{Frame: bytes.Clone(f), InPort: ps[0].No, Actions: as}
	}
	tagged := samples()["tagged udp4"]
	es := []datapath.Exec{
		exec(udp4(1, 0), output(ps[1])),
		exec(udp4(1, 1), action.Action{Op: action.Output, Port: gone}),
		exec(udp4(1, 2), output(ps[1]), action.Action{Op: action.SetDstPort, Value: 7}, output(ps[2])),
		exec(udp4(1, 3)), // no actions: drop
		exec(udp4(1, 4), action.Action{Op: action.PopVLAN}, output(ps[1])),
		exec(tagged, output(ps[1])),
		exec(udp4(1, 5), action.Action{Op: action.PushVLAN, Value: 5}, output(ps[1])),
		exec(udp4(1, 6), output(ps[0])), // back where it came from: a generated reply
	}
	b.dp.Execute(es)
	for i := range es {
		if bad := i == 1 || i == 4; (es[i].Err != nil) != bad {
			b.Errorf("packet %d: %v", i, es[i].Err)
		}
	}
	if !errors.Is(es[1].Err, datapath.ErrNoPort) {
		b.Errorf("no such port: %v", es[1].Err)
	}
	b.expect(ps[1], udp4(1, 0))
	b.expect(ps[1], udp4(1, 2))
	b.expect(ps[1], tagged)
	push := udp4(1, 5)
	b.expect(ps[1], append(append(bytes.Clone(push[:12]), 0x81, 0, 0, 5), push[12:]...))
	b.expect(ps[2], udp4(1, 7))
	b.expect(ps[0], udp4(1, 6))
	b.silent(ps...)
	b.noMiss(ps[0])

	many := make([]datapath.Exec, 100)
	for i := range many {
		many[i] = exec(udp4(2, uint16(i)), output(ps[1]))
	}
	b.dp.Execute(many)
	for i := range many {
		b.must(many[i].Err)
		b.expect(ps[1], udp4(2, uint16(i)))
	}
	b.dp.Execute(nil)
}

func closed(b *bench) {
	ps := b.ports(2)
	f := udp4(1, 2)
	b.put(ps[0], f, output(ps[1]))
	waiting := make(chan error, 1)
	go func() {
		var err error
		for err == nil { // until Close ends it
			_, err = b.dp.ReadMisses(0, []*datapath.Miss{new(datapath.Miss)}, time.Second)
		}
		waiting <- err
	}()
	b.must(b.dp.Close())
	select {
	case err := <-waiting:
		if !errors.Is(err, datapath.ErrClosed) {
			b.Errorf("ReadMisses: %v", err)
		}
	case <-time.After(patience):
		b.Fatal("Close did not end ReadMisses")
	}
	if _, err := b.dp.ReadMisses(0, []*datapath.Miss{new(datapath.Miss)}, 0); !errors.Is(err, datapath.ErrClosed) {
		b.Errorf("ReadMisses: %v", err)
	}
	if _, err := b.dp.PutFlows([]datapath.Flow{{Key: match.Key{InPort: 1}}}); !errors.Is(err, datapath.ErrClosed) {
		b.Errorf("PutFlows: %v", err)
	}
	b.send(ps[0], f)
	b.expect(ps[1], f)
}
