package traffic

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestStreamCountsLosses(t *testing.T) {
	l, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // swallows every tenth, repeats every seventh, turns two around
		buf, held := make([]byte, 2048), []byte(nil)
		for i := 1; ; i++ {
			n, from, err := l.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			switch {
			case i%10 == 0:
				continue
			case i == 5:
				held = append(held, buf[:n]...)
				continue
			case i%7 == 0:
				_, _ = l.WriteToUDPAddrPort(buf[:n], from)
			}
			_, _ = l.WriteToUDPAddrPort(buf[:n], from)
			if held != nil {
				_, _ = l.WriteToUDPAddrPort(held, from)
				held = nil
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := Stream{Target: l.LocalAddr().(*net.UDPAddr).AddrPort(), Rate: 1000, Duration: 200 * time.Millisecond, Linger: 2 * time.Second}.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r.Sent < 100 || r.Lost != r.Sent/10 || r.Repeated == 0 {
		t.Errorf("%+v", r)
	}
	if _, err := (Stream{Target: netip.MustParseAddrPort("127.0.0.1:1")}).Run(ctx); err == nil {
		t.Error("a stream without a rate")
	}
}
