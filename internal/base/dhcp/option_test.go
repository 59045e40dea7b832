package dhcp

import (
	"bytes"
	"strings"
	"testing"
)

func TestParseOption(t *testing.T) {
	for _, c := range []struct {
		six         bool
		name, value string
		code        uint16
		data        string
	}{
		{false, "ntp-server", "10.0.0.1, 10.0.0.2", 42, "\x0a\x00\x00\x01\x0a\x00\x00\x02"},
		{false, "42", "10.0.0.1", 42, "\x0a\x00\x00\x01"}, // a known number is typed
		{false, "200", "0x0A0b", 200, "\x0a\x0b"},
		{false, "bootfile-name", "pxelinux.0", 67, "pxelinux.0"},
		{false, "ip-forward-enable", "true", 19, "\x01"},
		{false, "default-ttl", "64", 23, "\x40"},
		{false, "boot-file-size", "513", 13, "\x02\x01"},
		{false, "arp-timeout", "60", 35, "\x00\x00\x00\x3c"},
		{false, "time-offset", "-1", 2, "\xff\xff\xff\xff"},
		{false, "netbios-nodetype", "8", 46, "\x08"},
		{false, "domain-search", "a.b c.", 119, "\x01a\x01b\x00\x01c\x00"},
		{true, "sntp-server", "fd00::1", 31, "\xfd" + strings.Repeat("\x00", 14) + "\x01"},
		{true, "bootfile-url", "http://x", 59, "http://x"},
		{true, "300", "0xff", 300, "\xff"},
	} {
		o, err := ParseOption(c.six, c.name, c.value)
		if err != nil || o.Code != c.code || !bytes.Equal(o.Data, []byte(c.data)) {
			t.Errorf("%s %q: %d %x %v, want %d %x", c.name, c.value, o.Code, o.Data, err, c.code, c.data)
		}
	}
}

func TestParseOptionRefuses(t *testing.T) {
	for _, c := range []struct {
		six               bool
		name, value, want string
	}{
		{false, "ntp-sever", "10.0.0.1", "is not known"},
		{false, "router", "10.0.0.1", "write gateway"},
		{false, "26", "0x0578", "write mtu"},
		{false, "53", "0x01", "belongs to the protocol"},
		{false, "0", "0x01", "no option that can be sent"},
		{false, "255", "0x01", "no option that can be sent"},
		{false, "65536", "0x01", "is not known"},
		{false, "ntp-server", "", "at least one address"},
		{false, "ntp-server", "fd00::1", "wants an address of the subnet's family"},
		{false, "swap-server", "10.0.0.1, 10.0.0.2", "wants an address"},
		{false, "default-ttl", "256", "wants a number of 8 bits"},
		{false, "time-offset", "x", "wants a signed number"},
		{false, "ip-forward-enable", "yes", "wants true or false"},
		{false, "netbios-nodetype", "3", "wants 1, 2, 4 or 8"},
		{false, "bootfile-name", "", "wants a text"},
		{false, "bootfile-name", strings.Repeat("x", 256), "is longer than 255 bytes"},
		{false, "200", "0a", "wants a hexadecimal value"},
		{false, "200", "0x0", "wants a hexadecimal value"},
		{false, "domain-search", "a..b", "is not a domain name"},
		{false, "domain-search", "-a", "is not a domain name"},
		{true, "dns-server", "fd00::1", "write dns_servers"},
		{true, "ntp-server", "fd00::1", "is not known"},
		{true, "sntp-server", "10.0.0.1", "wants an address of the subnet's family"},
	} {
		if _, err := ParseOption(c.six, c.name, c.value); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v, want %q", c.name, c.value, err, c.want)
		}
	}
}
