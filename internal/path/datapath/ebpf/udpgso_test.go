package ebpf

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ebpf/netnstest"
)

// gsoUnknown is a GSO type that no kernel takes, so that the datapath does what it does on those before 6.2.
const gsoUnknown = 2

func refuseUDPGSO(d *Datapath) {
	for range d.nsenders {
		s := <-d.senders
		s.sock.udpGSO = gsoUnknown
		d.senders <- s
	}
}

// A UDP socket may hand over many datagrams as one frame (UDP_SEGMENT); they arrive one by one.
func TestUDPSegments(t *testing.T) {
	const size, n = 1000, 20
	for _, c := range []struct{ flows, refused bool }{{}, {flows: true}, {refused: true}} {
		flows := c.flows
		for _, u := range [][3]string{{"IPv4", b4, alias4}, {"IPv6", b6, alias6}} {
			t.Run(fmt.Sprintf("%s/flows=%v/refused=%v", u[0], flows, c.refused), func(t *testing.T) {
				p := newPair(t, openTest(t, testOptions(t)))
				if c.refused {
					refuseUDPGSO(p.d)
				}
				p.nat = true
				p.serve(t, flows)
				var from, to *net.UDPConn
				p.b.Do(t, func() (err error) {
					to, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(u[1]), Port: dport})
					return err
				})
				defer to.Close()
				p.a.Do(t, func() (err error) {
					if from, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(u[2]), Port: atPort}); err != nil {
						return err
					}
					raw, err := from.SyscallConn()
					if err != nil {
						return err
					}
					return raw.Control(func(fd uintptr) {
						err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size)
					})
				})
				defer from.Close()
				p.awaitUDP(t, to, u[2])
				var data []byte
				for i := range n {
					data = append(data, bytes.Repeat([]byte{byte(i)}, size)...)
				}
				if err := to.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 1<<16)
				for range 2 { // the second, with flows, is not a miss
					if _, err := from.Write(data); err != nil {
						t.Fatal(err)
					}
					for i := range n {
						got, err := to.Read(buf)
						for err == nil && got == 1 { // a late one of awaitUDP
							got, err = to.Read(buf)
						}
						if err != nil || !bytes.Equal(buf[:got], data[i*size:(i+1)*size]) {
							t.Fatalf("datagram %d: %d bytes, %v", i, got, err)
						}
					}
				}
				if p.gso.Load() == 0 {
					t.Error("no GSO frame came up")
				}
			})
		}
	}
}

// awaitUDP sends datagrams of one byte, from a socket of its own, until one has arrived: a host takes none of IPv6 before its link is known to be
// up, which on a busy machine takes a while.
func (p *pair) awaitUDP(t *testing.T, to *net.UDPConn, addr string) {
	t.Helper()
	var from *net.UDPConn
	p.a.Do(t, func() (err error) {
		from, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(addr), Port: atPort})
		return err
	})
	defer from.Close()
	for range 200 {
		_, sent := from.Write([]byte{0})
		if err := to.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Read(make([]byte, 1)); err == nil && sent == nil {
			return
		}
	}
	t.Fatal("no datagram arrives")
}

// The datagrams that the datapath makes of a UDP GSO frame are, byte for byte, those that the kernel makes of it.
func TestUDPSegmentsAsKernel(t *testing.T) {
	ip := func(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }
	eth := packet.Ether{Dst: match.MAC{2, 0, 0, 0, 0, 2}, Src: match.MAC{2, 0, 0, 0, 0, 1}}
	payload := make([]byte, 5500)
	for i := range payload {
		payload[i] = byte(i * i >> 3)
	}
	for name, h := range map[string]packet.IP{
		"IPv4": {Src: ip("10.1.0.1"), Dst: ip("10.1.0.2"), ID: 0xfffe, TOS: 3}, // the identification wraps
		"IPv6": {Src: ip("fd01::1"), Dst: ip("fd01::2"), TTL: 5},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			port := r.NewPort(t)
			if err := netnstest.NoChecksumOffload(port); err != nil { // nor segmentation: the kernel itself does both
				t.Fatal(err)
			}
			l, err := netlink.LinkByName(port)
			if err != nil {
				t.Fatal(err)
			}
			send := func(gsoType uint8) (frames [][]byte) {
				t.Helper()
				sock, err := newSocket()
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(sock.fd)
				sock.udpGSO = gsoType
				frame := packet.BuildUDP(nil, eth, h, 7, 8, payload)
				v, _ := packet.Parse(frame, 0)
				packet.FillPartial(&v)
				gso := packet.GSO{Size: 1000, Segs: 6}
				vnet, err := sock.offload(frame, gso)
				if err != nil {
					t.Fatal(err)
				}
				sock.add(l.Attrs().Index, frame, vnet, 0)
				sock.send(func(_ int, err error) { t.Error(err) })
				if cut := sock.cut != nil; cut && gsoType == gsoUDPL4 {
					t.Skip("packet sockets of this kernel take no UDP GSO frame")
				}
				for range gso.Segs {
					f, ok := r.Recv(t, port, 5*time.Second)
					if !ok {
						t.Fatalf("%d datagrams arrived", len(frames))
					}
					frames = append(frames, f)
				}
				return frames
			}
			theirs, ours := send(gsoUDPL4), send(gsoUnknown)
			for i := range theirs {
				if !bytes.Equal(theirs[i], ours[i]) {
					t.Errorf("datagram %d:\nkernel % x\nours   % x", i, theirs[i], ours[i])
				}
			}
		})
	}
}
