package pki

import "net/netip"

// Loopback tells whether a host of an address is this machine for itself: what is said there needs no certificates.
func Loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
