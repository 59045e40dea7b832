package sim

import (
	"fmt"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// talk is one VM asking another something, several times, and getting answers: one connection.
type talk struct {
	n            uint64
	from         *vm
	to           match.Addr
	proto        uint8
	sport, dport uint16
	left         int
	every        time.Duration
	fin          bool // TCP's end is said with the last packet
	sent         uint64
	probe        bool // after quiet: every packet of it counts
	packets      []uint64
}

func (t *talk) String() string {
	return fmt.Sprintf("talk %d: %s:%d to %s:%d, protocol %d", t.n, t.from.name, t.sport, t.to, t.dport, t.proto)
}

// begin starts it.
func (s *Sim) begin(t *talk) {
	s.judge.talks = append(s.judge.talks, t)
	t.n = uint64(len(s.judge.talks))
	s.logf("%v begins", t)
	t.next()
}

func (t *talk) next() {
	v := t.from
	if t.left == 0 || v.silent {
		return
	}
	t.left--
	t.sent++
	n := t.n<<16 | t.sent<<1
	flags := uint8(packet.FlagACK)
	switch {
	case t.sent == 1:
		flags = packet.FlagSYN
	case t.left == 0 && t.fin:
		flags |= packet.FlagFIN
	}
	build := func(to match.MAC) []byte {
		eth, ip := packet.Ether{Dst: to, Src: v.mac}, packet.IP{Src: v.addr, Dst: t.to}
		switch t.proto {
		case packet.ProtoTCP:
			return packet.BuildTCP(nil, eth, ip, packet.TCP{SrcPort: t.sport, DstPort: t.dport, Flags: flags}, payload(n))
		case packet.ProtoUDP:
			return packet.BuildUDP(nil, eth, ip, t.sport, t.dport, payload(n))
		}
		return packet.BuildEchoRequest(nil, eth, ip, t.sport, uint16(t.sent), payload(n))
	}
	v.send(t.to, build, func(frame []byte) {
		t.packets = append(t.packets, n)
		v.s.judge.sent(v, frame, n)
	})
	if t.left > 0 {
		v.s.after(t.every, t.next)
	}
}

// push has the other end say something that nobody has just asked for, where the last question came out.
func (s *Sim) push(t *talk) {
	last := s.judge.packets[t.n<<16|t.sent<<1]
	if last == nil || last.by == nil {
		return
	}
	p, _ := packet.Parse(last.got, 0)
	t.sent++
	n := t.n<<16 | t.sent<<1
	again := *last // the question to which it belongs, for who judges it
	again.n = n
	s.judge.packets[n] = &again
	last.by.answer(&p, n)
}
