package netns

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
)

const datagramPort = 5300

// listen opens a UDP socket in a namespace.
func listen(t *testing.T, s ns.Space) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	err := s.Do(func() (err error) {
		c, err = net.ListenPacket("udp", fmt.Sprintf(":%d", datagramPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// echoDatagrams gives back what comes, until the test is over.
func echoDatagrams(t *testing.T, s ns.Space) (stop func()) {
	t.Helper()
	c := listen(t, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	stop = func() { c.Close(); <-done }
	t.Cleanup(stop)
	return stop
}

// datagrams sends some of so many bytes, each of which has to come back as it was.
func datagrams(t *testing.T, from ns.Space, address string, size int) {
	t.Helper()
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.Dial("udp", net.JoinHostPort(address, fmt.Sprint(datagramPort)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 65536)
	for i := range 5 {
		sent := bytes.Repeat([]byte{byte(i), 1, 2, 3, 5, 7, 11, 13}, size/8)
		eventually(t, fmt.Sprintf("a datagram of %d bytes to %s comes back", size, address), func(context.Context) error {
			if _, err := c.Write(sent); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			n, err := c.Read(b)
			if err == nil && !bytes.Equal(b[:n], sent) && b[0] == byte(i) {
				t.Fatalf("%d bytes came back, not as they were sent", n)
			}
			if err == nil && !bytes.Equal(b[:n], sent) {
				err = fmt.Errorf("an earlier one")
			}
			return err
		})
	}
}

// TestFragmentsOutOfOrder: a receiver behind a masquerading router reassembles what was sent last fragment first.
func TestFragmentsOutOfOrder(t *testing.T) {
	t.Parallel()
	l := laboratory(t, examples.Gateway)
	alice, world := space(t, l, "alice"), space(t, l, "world")
	ping(t, alice, "203.0.113.100") // everybody is known
	c := listen(t, world)
	payload := bytes.Repeat([]byte("viaduct."), 1000)
	whole := packet.BuildUDP(nil,
		packet.Ether{Src: match.MAC{2, 0, 0, 0, 1, 0x10}, Dst: match.MAC{2, 0, 0, 0, 1, 1}},
		packet.IP{Src: match.AddrFrom(netip.MustParseAddr("10.0.1.10")), Dst: match.AddrFrom(netip.MustParseAddr("203.0.113.100")), TTL: 64}, 7777, datagramPort, payload)
	fragments := pathtest.Fragments(whole, 1400, 4711)
	slices.Reverse(fragments)
	inject(t, alice, fragments)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 65536)
	n, from, err := c.ReadFrom(b)
	if err != nil || !bytes.Equal(b[:n], payload) {
		t.Fatalf("%d bytes from %v: %v", n, from, err)
	}
	if at := from.(*net.UDPAddr).AddrPort(); at.Addr().Unmap().String() != "203.0.113.1" || at.Port() == 7777 {
		t.Errorf("from %v", from)
	}
}
