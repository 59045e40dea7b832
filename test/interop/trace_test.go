package interop

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// out is one frame that reached a VM's port. Fields that do not count for the kind are zero.
type out struct {
	port           string
	kind           string // the packet's own kind, or what a device made of it, with a * in front
	ethSrc, ethDst match.MAC
	src, dst       netip.Addr
	ttl            uint8
	sport, dport   uint16
	sha            match.MAC // of ARP and ND
	icmp           [2]uint8  // type and code of errors
}

func (o out) String() string {
	s := fmt.Sprintf("%s: %s", o.port, o.kind)
	if o.ethSrc != (match.MAC{}) || o.ethDst != (match.MAC{}) {
		s += fmt.Sprintf(" %s > %s", o.ethSrc, o.ethDst)
	}
	if o.src.IsValid() || o.dst.IsValid() {
		s += fmt.Sprintf(" %s > %s", o.src, o.dst)
	}
	if o.ttl != 0 {
		s += fmt.Sprintf(" ttl %d", o.ttl)
	}
	if o.sport|o.dport != 0 {
		s += fmt.Sprintf(" %d > %d", o.sport, o.dport)
	}
	if o.sha != (match.MAC{}) {
		s += " at " + o.sha.String()
	}
	if o.icmp != ([2]uint8{}) {
		s += fmt.Sprintf(" type %d code %d", o.icmp[0], o.icmp[1])
	}
	return s
}

// verdict is what came of a packet: nothing, or these, ordered.
type verdict []out

func (v verdict) sort() {
	slices.SortFunc(v, func(a, b out) int { return strings.Compare(a.String(), b.String()) })
}

func (v verdict) String() string {
	if len(v) == 0 {
		return "\tnothing\n"
	}
	var s string
	for _, o := range v {
		s += "\t" + o.String() + "\n"
	}
	return s
}

func (v verdict) equal(w verdict) bool { return slices.Equal(v, w) }

// plain leaves of an output what counts for its kind on both sides: of what a device makes itself, TTLs are a matter of
// taste, and ovn-trace does not show all of a request.
func (o out) plain() out {
	switch o.kind {
	case "*arp request":
		return out{port: o.port, kind: o.kind, src: o.src, dst: o.dst}
	case "*solicitation":
		return out{port: o.port, kind: o.kind, dst: o.dst}
	case "*arp reply":
		o.ttl = 0
	case "*advertisement":
		return out{port: o.port, kind: o.kind, ethSrc: o.ethSrc, src: o.src, sha: o.sha}
	case "*tcp reset":
		return out{port: o.port, kind: o.kind, ethSrc: o.ethSrc, ethDst: o.ethDst, src: o.src, dst: o.dst}
	case "*error", "*echo reply":
		o.ttl, o.sport, o.dport = 0, 0, 0
	}
	return o
}

var (
	assign = regexp.MustCompile(`^([a-z0-9_.]+) = (\S+);$`)
	block  = regexp.MustCompile(`^([a-z0-9_]+).*\{$`)
	nat    = regexp.MustCompile(`ip[46]\.(src|dst)=([0-9a-f.:]+)`)
	emit   = regexp.MustCompile(`^output\("(.*)"\)`)
)

// parseTrace reads the answer of ovn-trace --minimal: assignments and outputs, within blocks that work on a copy.
func parseTrace(p *pkt, text string) (v verdict, err error) {
	now := out{kind: p.kind, ethSrc: p.eth.Src, ethDst: p.eth.Dst, src: p.src, dst: p.dst, ttl: p.ttl, sport: p.sport, dport: p.dport}
	switch p.kind {
	case "arp", "arpreply":
		now.ttl, now.sport, now.dport, now.sha = 0, 0, 0, p.eth.Src
	case "other":
		now = out{kind: p.kind, ethSrc: p.eth.Src, ethDst: p.eth.Dst}
	case "udp", "tcp":
	default:
		now.sport, now.dport = 0, 0
	}
	var stack []out
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch m := []string(nil); {
		case line == "" || line[0] == '#' || strings.HasPrefix(line, "/*"):
		case line == "};":
			now, stack = stack[len(stack)-1], stack[:len(stack)-1]
		case line == "ip.ttl--;":
			now.ttl--
		default:
			if m = block.FindStringSubmatch(line); m != nil {
				stack = append(stack, now)
				now.enter(m[1])
				for _, x := range nat.FindAllStringSubmatch(line, -1) {
					err = now.set("ip4."+x[1], x[2])
				}
			} else if m = emit.FindStringSubmatch(line); m != nil {
				o := now
				o.port = m[1]
				v = append(v, o.plain())
			} else if m = assign.FindStringSubmatch(line); m != nil {
				err = now.set(m[1], m[2])
			} else if !ignored(line) {
				err = fmt.Errorf("what is %q?", line)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	v.sort()
	return v, nil
}

// ignored are steps that say nothing about the packet.
func ignored(line string) bool {
	for _, s := range []string{"ct_", "next", "commit_", "icmp4;", "icmp6;", "tcp_reset;", "arp;", "nd_ns;"} { // whole blocks: they came to nothing
		if strings.HasPrefix(line, s) {
			return true
		}
	}
	return false
}

// enter begins a block: some of them make another packet.
func (o *out) enter(what string) {
	switch what {
	case "icmp4", "icmp4_error", "icmp6", "icmp6_error":
		o.kind, o.sport, o.dport = "*error", 0, 0
		// The defaults of icmp4 and icmp6 (ovn-sb(5)).
		o.icmp = [2]uint8{3, 1}
		if what[4] == '6' {
			o.icmp = [2]uint8{1, 1}
		}
	case "tcp_reset":
		o.kind = "*tcp reset"
	case "reject":
		o.kind = "*reject"
	case "nd_na", "nd_na_router":
		o.kind, o.ethSrc, o.ethDst, o.dst = "*advertisement", o.ethDst, o.ethSrc, o.src
	case "arp":
		o.kind = "*arp request"
	case "nd_ns":
		o.kind = "*solicitation"
	}
}

func (o *out) set(field, value string) (err error) {
	switch field {
	case "eth.src":
		o.ethSrc, err = readMAC(value)
	case "eth.dst":
		o.ethDst, err = readMAC(value)
	case "ip4.src", "ip6.src", "arp.spa":
		o.src, err = readAddr(value)
	case "ip4.dst", "ip6.dst", "arp.tpa":
		o.dst, err = readAddr(value)
	case "nd.target":
		if o.kind == "*solicitation" {
			o.dst, err = readAddr(value)
		}
	case "arp.sha", "nd.tll", "nd.sll":
		o.sha, err = readMAC(value)
	case "ip.ttl":
		var n int
		n, err = strconv.Atoi(value)
		o.ttl = uint8(n)
	case "arp.op":
		if value == "2" && o.kind == "arp" {
			o.kind = "*arp reply"
		}
	case "icmp4.type", "icmp6.type":
		n, e := strconv.Atoi(value)
		if err = e; o.kind == "echo" && (n == 0 || n == 129) {
			o.kind = "*echo reply"
		}
		if o.kind == "*error" {
			o.icmp[0] = uint8(n)
		}
	case "icmp4.code", "icmp6.code":
		n, e := strconv.Atoi(value)
		if err = e; o.kind == "*error" {
			o.icmp[1] = uint8(n)
		}
	}
	return err
}

// number reads what ovn-trace prints as an integer, as n bytes.
func number(s string, n int) ([]byte, bool) {
	digits, ok := strings.CutPrefix(s, "0x")
	if !ok {
		return nil, false
	}
	b, err := hex.DecodeString(strings.Repeat("0", max(2*n-len(digits), 0)) + digits)
	return b, err == nil && len(b) == n
}

func readMAC(s string) (m match.MAC, err error) {
	if b, ok := number(s, len(m)); ok {
		copy(m[:], b)
		return m, nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err == nil && len(b) == len(m) {
		copy(m[:], b)
		return m, nil
	}
	return m, fmt.Errorf("%q is not a MAC address", s)
}

func readAddr(s string) (netip.Addr, error) {
	if b, ok := number(s, 4); ok {
		return netip.AddrFrom4([4]byte(b)), nil
	}
	if b, ok := number(s, 16); ok {
		return netip.AddrFrom16([16]byte(b)), nil
	}
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n))
		return netip.AddrFrom4(b), nil
	}
	return netip.ParseAddr(s)
}
