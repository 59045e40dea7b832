package dhcp

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Option is one option of DHCPv4 (code up to 254) or DHCPv6, encoded.
type Option struct {
	Code uint16
	Data []byte
}

// maxOption is the longest value of an option that people write, in bytes: a DHCPv4 option's.
const maxOption = 255

// ParseOption reads an option by its name, or by its number, whose value is then typed if the
// number is a known one and otherwise hexadecimal (0x0a0b). The error reads on from "option NAME".
func ParseOption(six bool, name, value string) (Option, error) {
	table := &options4
	if six {
		table = &options6
	}
	k, ok := table.byName[name]
	if n, err := strconv.ParseUint(name, 10, 16); err == nil {
		k, ok = table.byCode[uint16(n)], true
		if k.encode == nil {
			k = kind{code: uint16(n), encode: encodeHex}
		}
	}
	if !ok {
		return Option{}, errors.New("is not known: use its number and a hexadecimal value")
	}
	if field := table.owned[k.code]; field != "" {
		return Option{}, errors.New(field)
	}
	if k.code == 0 || !six && k.code > 254 {
		return Option{}, errors.New("is no option that can be sent")
	}
	data, err := k.encode(strings.TrimSpace(value), six)
	if err == nil && len(data) > maxOption {
		err = fmt.Errorf("is longer than %d bytes", maxOption)
	}
	return Option{Code: k.code, Data: data}, err
}

// kind is how an option's value is written.
type kind struct {
	code   uint16
	encode func(value string, six bool) ([]byte, error)
}

type optionTable struct {
	byName map[string]kind
	byCode map[uint16]kind
	owned  map[uint16]string // options that are not for writing, and why
}

func newTable(byName map[string]kind, owned map[uint16]string) optionTable {
	t := optionTable{byName, make(map[uint16]kind, len(byName)), owned}
	for _, k := range byName {
		t.byCode[k.code] = k
	}
	return t
}

// DHCPv4 options by the names that dnsmasq and Neutron use (RFC 2132 unless said otherwise).
var options4 = newTable(map[string]kind{
	"netmask": {1, nil}, "time-offset": {2, encodeInt32}, "router": {3, nil}, "time-server": {4, encodeAddrs},
	"dns-server": {6, nil}, "log-server": {7, encodeAddrs}, "lpr-server": {9, encodeAddrs}, "hostname": {12, encodeText},
	"boot-file-size": {13, encodeUint16}, "domain-name": {15, nil}, "swap-server": {16, encodeAddr}, "root-path": {17, encodeText},
	"extension-path": {18, encodeText}, "ip-forward-enable": {19, encodeBool}, "non-local-source-routing": {20, encodeBool},
	"max-datagram-reassembly": {22, encodeUint16}, "default-ttl": {23, encodeUint8}, "mtu": {26, nil}, "all-subnets-local": {27, encodeBool},
	"broadcast": {28, nil}, "router-discovery": {31, encodeBool}, "router-solicitation": {32, encodeAddr}, "trailer-encapsulation": {34, encodeBool},
	"arp-timeout": {35, encodeUint32}, "ethernet-encap": {36, encodeBool}, "tcp-ttl": {37, encodeUint8}, "tcp-keepalive": {38, encodeUint32},
	"nis-domain": {40, encodeText}, "nis-server": {41, encodeAddrs}, "ntp-server": {42, encodeAddrs}, "vendor-encap": {43, encodeHex},
	"netbios-ns": {44, encodeAddrs}, "netbios-dd": {45, encodeAddrs}, "netbios-nodetype": {46, encodeNodeType}, "netbios-scope": {47, encodeText},
	"x-windows-fs": {48, encodeAddrs}, "x-windows-dm": {49, encodeAddrs}, "lease-time": {51, nil}, "server-identifier": {54, nil},
	"T1": {58, nil}, "T2": {59, nil}, "vendor-class": {60, encodeText}, "nis+-domain": {64, encodeText}, "nis+-server": {65, encodeAddrs},
	"tftp-server": {66, encodeText}, "bootfile-name": {67, encodeText}, "mobile-ip-home": {68, encodeAddrs}, "smtp-server": {69, encodeAddrs},
	"pop3-server": {70, encodeAddrs}, "nntp-server": {71, encodeAddrs}, "www-server": {72, encodeAddrs}, "irc-server": {74, encodeAddrs},
	"posix-timezone": {100, encodeText}, "tzdb-timezone": {101, encodeText}, // RFC 4833
	"ipv6-only": {108, encodeUint32}, "captive-portal": {114, encodeText}, // RFC 8925, RFC 8910
	"domain-search": {119, encodeDomains}, "classless-static-route": {121, nil}, // RFC 3397, RFC 3442
	"tftp-server-address": {150, encodeAddrs}, "wpad": {252, encodeText}, // RFC 5859
}, map[uint16]string{
	1: "is the subnet's own: it follows from cidr", 3: "is the subnet's own: write gateway", 6: "is the subnet's own: write dns_servers",
	15: "is the subnet's own: write domain", 26: "is the subnet's own: write mtu", 28: "is the subnet's own: it follows from cidr",
	51: "is the subnet's own: write lease_time", 121: "is the subnet's own: write host_routes",
	50: protocols, 52: protocols, 53: protocols, 54: protocols, 55: protocols, 56: protocols, 57: protocols, 58: protocols, 59: protocols,
	61: protocols, 82: protocols,
})

// DHCPv6 options (RFC 8415 and the registry of IANA).
var options6 = newTable(map[string]kind{
	"dns-server": {23, nil}, "domain-search": {24, nil}, "sip-server-domain": {21, encodeDomains}, "sip-server": {22, encodeAddrs},
	"nis-server": {27, encodeAddrs}, "nis+-server": {28, encodeAddrs}, "nis-domain": {29, encodeDomains}, "nis+-domain": {30, encodeDomains},
	"sntp-server": {31, encodeAddrs}, "information-refresh-time": {32, encodeUint32}, "posix-timezone": {41, encodeText},
	"tzdb-timezone": {42, encodeText}, "bootfile-url": {59, encodeText}, "captive-portal": {103, encodeText},
}, map[uint16]string{
	1: protocols, 2: protocols, 3: protocols, 4: protocols, 5: protocols, 6: protocols, 7: protocols, 8: protocols, 9: protocols,
	11: protocols, 12: protocols, 13: protocols, 14: protocols, 18: protocols, 19: protocols, 20: protocols, 25: protocols, 26: protocols,
	23: "is the subnet's own: write dns_servers", 24: "is the subnet's own: write domain",
})

const protocols = "belongs to the protocol itself"

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func encodeAddr(s string, six bool) ([]byte, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is6() != six || a.Zone() != "" {
		return nil, fmt.Errorf("wants an address of the subnet's family, not %q", s)
	}
	return a.AsSlice(), nil
}

func encodeAddrs(s string, six bool) (b []byte, err error) {
	for _, w := range words(s) {
		a, err := encodeAddr(w, six)
		if err != nil {
			return nil, err
		}
		b = append(b, a...)
	}
	if len(b) == 0 {
		return nil, errors.New("wants at least one address")
	}
	return b, nil
}

func encodeText(s string, _ bool) ([]byte, error) {
	if s == "" || strings.ContainsRune(s, 0) {
		return nil, errors.New("wants a text")
	}
	return []byte(s), nil
}

func encodeBool(s string, _ bool) ([]byte, error) {
	switch s {
	case "true", "1":
		return []byte{1}, nil
	case "false", "0":
		return []byte{0}, nil
	}
	return nil, fmt.Errorf("wants true or false, not %q", s)
}

func number(s string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		return 0, fmt.Errorf("wants a number of %d bits, not %q", bits, s)
	}
	return n, nil
}

func encodeUint8(s string, _ bool) ([]byte, error) {
	n, err := number(s, 8)
	return []byte{byte(n)}, err
}

func encodeUint16(s string, _ bool) ([]byte, error) {
	n, err := number(s, 16)
	return binary.BigEndian.AppendUint16(nil, uint16(n)), err
}

func encodeUint32(s string, _ bool) ([]byte, error) {
	n, err := number(s, 32)
	return binary.BigEndian.AppendUint32(nil, uint32(n)), err
}

func encodeInt32(s string, _ bool) ([]byte, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("wants a signed number of 32 bits, not %q", s)
	}
	return binary.BigEndian.AppendUint32(nil, uint32(n)), nil
}

// encodeNodeType is one of the four of RFC 2132 section 8.7.
func encodeNodeType(s string, six bool) ([]byte, error) {
	switch s {
	case "1", "2", "4", "8":
		return encodeUint8(s, six)
	}
	return nil, fmt.Errorf("wants 1, 2, 4 or 8, not %q", s)
}

func encodeHex(s string, _ bool) ([]byte, error) {
	digits, ok := strings.CutPrefix(s, "0x")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) == 0 {
		return nil, fmt.Errorf("wants a hexadecimal value such as 0x0a0b, not %q", s)
	}
	return b, nil
}

func encodeDomains(s string, _ bool) (b []byte, err error) {
	for _, w := range words(s) {
		if b, err = AppendDomain(b, w); err != nil {
			return nil, err
		}
	}
	if len(b) == 0 {
		return nil, errors.New("wants at least one domain")
	}
	return b, nil
}

// AppendDomain appends a domain as labels, not compressed (RFC 1035 section 3.1). It refuses what is
// no host name (RFC 1123 section 2.1).
func AppendDomain(b []byte, domain string) ([]byte, error) {
	bad := fmt.Errorf("%q is not a domain name", domain)
	name := strings.TrimSuffix(domain, ".")
	if name == "" || len(name) > 253 {
		return nil, bad
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, notHost) {
			return nil, bad
		}
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0), nil
}

func notHost(r rune) bool {
	return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}
