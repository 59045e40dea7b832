package ebpf

import (
	"io"
	"net"
	"testing"
)

// BenchmarkTCP is one TCP connection between two namespaces through flows: by the short cut into the
// peer, and through the port's own interface and its peer's backlog.
func BenchmarkTCP(b *testing.B) {
	for _, peer := range []bool{true, false} {
		name := "redirect_peer"
		if !peer {
			name = "redirect"
		}
		b.Run(name, func(b *testing.B) {
			p := newPair(b, openTest(b, testOptions(b)))
			if !peer {
				notPeer(b, p.d, p.pa.No)
				notPeer(b, p.d, p.pb.No)
			}
			p.serve(b, true)
			l := p.b.Listen(b, net.JoinHostPort(b4, "8080"))
			done := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, err = io.Copy(io.Discard, struct{ io.Reader }{c})
				}
				done <- err
			}()
			c := p.a.Dial(b, net.JoinHostPort(b4, "8080"))
			chunk := make([]byte, 1<<20)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				if _, err := c.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
			c.Close()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}
