package netns

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

func ifindex(name string) (int, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return ifi.Index, nil
}

// inject sends frames as they are out of a VM's interface.
func inject(t *testing.T, s ns.Space, frames [][]byte) {
	t.Helper()
	err := s.Do(func() error {
		index, err := ifindex("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
			return err
		}
		for i, f := range frames {
			if _, err := unix.Write(fd, f); err != nil {
				return fmt.Errorf("frame %d, %d bytes: %w", i, len(f), err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// frame is Ethernet from mallory to the gateway with a payload.
func frame(ethType uint16, payload []byte) []byte {
	f := append([]byte{2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 0x66}, binary.BigEndian.AppendUint16(nil, ethType)...)
	return append(f, payload...)
}

// udp4 is a valid IPv4 packet to bob, but for what the change makes of it.
func udp4(change func(ip []byte)) []byte {
	ip := make([]byte, 20+8+16)
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[8], ip[9] = 64, 17
	copy(ip[12:], []byte{10, 0, 1, 66})
	copy(ip[16:], []byte{10, 0, 2, 10})
	binary.BigEndian.PutUint16(ip[20:], 1234)
	binary.BigEndian.PutUint16(ip[22:], 5678)
	binary.BigEndian.PutUint16(ip[24:], 24)
	change(ip)
	ip[10], ip[11] = 0, 0
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return ip
}

// drops counts what the agent and its datapath have dropped: frames that the kernel cannot read at
// their port, others by the reason of the stage that refused them.
func drops(ctx context.Context, l *lab.Lab) (n uint64, err error) {
	agent := debug.NewClient(l.Hosts[0].Socket())
	ports, err := agent.Ports(ctx)
	if err != nil {
		return 0, err
	}
	for _, p := range ports {
		for _, c := range p.Drops {
			n += c
		}
	}
	s, err := agent.Stats(ctx)
	for _, c := range s.Dropped {
		n += c
	}
	return n, err
}

// What a VM sends that no well-behaved one would: each is a counted drop, nobody else
// notices, the agent lives.
func TestBadFrames(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	pid := l.Hosts[0].PID
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"header cut short", frame(0x0800, udp4(func([]byte) {})[:12])},
		{"length beyond the frame", frame(0x0800, udp4(func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 1400) }))},
		{"header length beyond the packet", frame(0x0800, udp4(func(ip []byte) { ip[0] = 0x4f }))},
		{"header length too small", frame(0x0800, udp4(func(ip []byte) { ip[0] = 0x41 }))},
		{"version 7", frame(0x0800, udp4(func(ip []byte) { ip[0] = 0x75 }))},
		{"IPv6 with 3 bytes", frame(0x86dd, []byte{0x60, 0, 0})},
		{"ARP cut short", frame(0x0806, []byte{0, 1, 8, 0, 6, 4, 0, 1})},
		{"multicast source", append([]byte{2, 0, 0, 0, 1, 1, 3, 0, 0, 0, 1, 0x66, 8, 0}, udp4(func([]byte) {})...)},
		{"two tags", frame(0x88a8, append([]byte{0, 5, 0x81, 0, 0, 6, 8, 0}, udp4(func([]byte) {})...))},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, err := drops(t.Context(), l)
			if err != nil {
				t.Fatal(err)
			}
			inject(t, space(t, l, "mallory"), [][]byte{c.frame})
			eventually(t, "the drop is counted", func(ctx context.Context) error {
				now, err := drops(ctx, l)
				if err == nil && now <= before {
					err = fmt.Errorf("%d drops, as before", now)
				}
				return err
			})
		})
	}
	t.Run("noise", func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		frames := [][]byte{frame(0x8100, []byte{0})} // half a tag: the kernel itself drops it
		for range 3000 {
			types := []uint16{0x0800, 0x86dd, 0x0806, 0x8100, uint16(random.Uint32())}
			payload := make([]byte, random.IntN(200))
			for i := range payload {
				payload[i] = byte(random.Uint32())
			}
			frames = append(frames, frame(types[random.IntN(len(types))], payload))
		}
		inject(t, space(t, l, "mallory"), frames)
	})
	if got := l.Hosts[0].PID; got != pid {
		t.Errorf("the agent is process %d, was %d", got, pid)
	}
	ping(t, space(t, l, "alice"), "10.0.2.10")
	ping(t, space(t, l, "mallory"), "10.0.2.10")
}
