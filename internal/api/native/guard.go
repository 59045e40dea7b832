package native

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/viaduct-net/viaduct/internal/pki"
)

// CheckListen refuses a TCP address beyond the loopback, unless what is said there is encrypted and everybody must say who they are.
func CheckListen(addr string, secure bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("listen address %q: %w", addr, err)
	}
	if !secure && !pki.Loopback(host) {
		return fmt.Errorf("listen address %q is not on the loopback: that needs TLS and authentication (--tls-cert and --tls-key, "+
			"and --token-file or --client-ca; \"viaduct certs\" makes certificates), else use 127.0.0.1:PORT, [::1]:PORT or unix:///PATH", addr)
	}
	return nil
}

// guard keeps web pages in a local browser from using the API: by their origin, and, when
// they made their own name point to the loopback (DNS rebinding), by that name.
func guard(next http.Handler) http.Handler {
	next = http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if r.TLS == nil && !pki.Loopback(strings.Trim(host, "[]")) {
			http.Error(w, fmt.Sprintf("host %q is not this machine's loopback", r.Host), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
