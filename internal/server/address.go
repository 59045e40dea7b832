package server

import (
	"net"
	"strings"
)

// socketPath is the path of a unix:///PATH address.
func socketPath(addr string) (string, bool) {
	path, ok := strings.CutPrefix(addr, "unix://")
	return path, ok && strings.HasPrefix(path, "/")
}

// apiAddress is how a client names what l listens on.
func apiAddress(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}
