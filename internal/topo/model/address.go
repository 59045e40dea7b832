package model

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
)

// The functions here say what is wrong with a value; "" when nothing is.

func badUnicast(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "is not an address"
	case a.Is4In6():
		return fmt.Sprintf("%s: an IPv4-mapped address: write %s", a, a.Unmap())
	case a.Zone() != "":
		return fmt.Sprintf("%s: a zone has no meaning here", a)
	case a.IsUnspecified():
		return fmt.Sprintf("%s is the unspecified address", a)
	case a.IsMulticast():
		return fmt.Sprintf("%s is a multicast address", a)
	case a.IsLoopback():
		return fmt.Sprintf("%s is a loopback address", a)
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Sprintf("%s is the broadcast address", a)
	}
	return ""
}

func badNetwork(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return "is not a prefix"
	case p.Addr().Is4In6():
		return fmt.Sprintf("%s: an IPv4-mapped prefix", p)
	case p != p.Masked():
		return fmt.Sprintf("%s has bits beyond its length: write %s", p, p.Masked())
	}
	return ""
}

// badInterface follows the kernel's dev_valid_name.
func badInterface(name string) string {
	switch {
	case name == "":
		return "is missing"
	case len(name) > MaxInterface:
		return fmt.Sprintf("%q is longer than %d bytes", name, MaxInterface)
	case name == "." || name == "..":
		return fmt.Sprintf("%q is not an interface name", name)
	case strings.ContainsAny(name, "/:%\x00"):
		return fmt.Sprintf("%q has one of the characters / : %%", name)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return fmt.Sprintf("%q has white space or what cannot be printed", name)
	}
	return ""
}

// lastAddr is the highest address of an IPv4 subnet.
func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(a)
}
