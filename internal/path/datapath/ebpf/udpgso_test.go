package ebpf

import (
	"bytes"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A UDP socket may hand over many datagrams as one frame (UDP_SEGMENT); they arrive one by one.
func TestUDPSegments(t *testing.T) {
	const size, n = 1000, 20
	for _, flows := range []bool{false, true} {
		for _, u := range [][3]string{{"IPv4", b4, alias4}, {"IPv6", b6, alias6}} {
			t.Run(fmt.Sprintf("%s/flows=%v", u[0], flows), func(t *testing.T) {
				p := newPair(t, openTest(t, testOptions(t)))
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
				var data []byte
				for i := range n {
					data = append(data, bytes.Repeat([]byte{byte(i)}, size)...)
				}
				if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 1<<16)
				for range 2 { // the second, with flows, is not a miss
					if _, err := from.Write(data); err != nil {
						t.Fatal(err)
					}
					for i := range n {
						got, err := to.Read(buf)
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
