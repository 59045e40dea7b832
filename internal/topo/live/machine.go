package live

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what a host is at present.
type Machine struct {
	ID      string // of no other machine, and of this one until it starts anew
	Name    string // what people call it; may be empty
	Address string // where they find it; may be empty
}

func (m Machine) String() string {
	s := "machine " + m.Name
	if m.Name == "" {
		s = "a machine with id " + m.ID
	}
	if m.Address != "" {
		s += " at " + m.Address
	}
	return s
}

// text is how the store has it: its id, its address and its name, with a blank between each.
func (m Machine) text() []byte { return []byte(m.ID + " " + m.Address + " " + m.Name) }

// parseMachine is the inverse of text. Of nothing it is the zero value.
func parseMachine(b []byte) (m Machine) {
	id, rest, _ := strings.Cut(string(b), " ")
	m.ID = id
	m.Address, m.Name, _ = strings.Cut(rest, " ")
	return m
}

// This is the machine, or the network namespace of one, in which the process runs. Its address is the one from which the first
// of some URLs is reached, else one of an interface. It sends nothing but questions for the URL's name.
func This(ctx context.Context, urls []string) (Machine, error) {
	// Of one boot, and so of no clone; the namespace tells laboratories' hosts from each other.
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Machine{}, fmt.Errorf("which machine this is: %w", err)
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return Machine{}, fmt.Errorf("which network namespace this is: %w", err)
	}
	m := Machine{ID: fmt.Sprintf("%s/%d", strings.TrimSpace(string(boot)), ns.Ino)}
	m.Name, _ = os.Hostname() // both are for people
	if a := towards(ctx, urls); a.IsValid() {
		m.Address = a.String()
	}
	return m, nil
}

// nameWait is how long the name in a URL may take to be looked up.
const nameWait = time.Second

// towards is the machine's address on the way to the first URL; the zero one when it has none.
func towards(ctx context.Context, urls []string) netip.Addr {
	if len(urls) > 0 {
		if u, err := url.Parse(urls[0]); err == nil {
			d := net.Dialer{Timeout: nameWait}
			if c, err := d.DialContext(ctx, "udp", net.JoinHostPort(u.Hostname(), "1")); err == nil { // no packet is sent
				defer c.Close()
				if a, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil && !a.Addr().IsLoopback() {
					return a.Addr().Unmap()
				}
			}
		}
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, x := range all {
		if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().IsGlobalUnicast() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}
