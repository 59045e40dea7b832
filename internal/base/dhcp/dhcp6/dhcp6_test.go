package dhcp6

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

var (
	client = dhcp.Client{MAC: match.MAC{2, 0, 0, 0, 0, 5}, Addr: netip.MustParseAddr("fd00::5")}
	subnet = dhcp.Subnet{
		Prefix: netip.MustParsePrefix("fd00::/64"), DNS: []netip.Addr{netip.MustParseAddr("2620:fe::9")}, Domain: "example.org", Lease: 3600,
		Options: []dhcp.Option{{Code: 31, Data: client.Addr.AsSlice()}, {Code: 200, Data: make([]byte, 255)}, {Code: 201, Data: make([]byte, 255)},
			{Code: 202, Data: make([]byte, 255)}, {Code: 203, Data: make([]byte, 255)}, {Code: 204, Data: make([]byte, 255)}},
	}
)

// A whole conversation with the library's own client side.
func TestConversation(t *testing.T) {
	solicit, err := dhcpv6.NewSolicit(client.MAC[:])
	if err != nil {
		t.Fatal(err)
	}
	advertise := answered(t, solicit, dhcpv6.MessageTypeAdvertise)
	request, err := dhcpv6.NewRequestFromAdvertise(advertise)
	if err != nil {
		t.Fatal(err)
	}
	reply := answered(t, request, dhcpv6.MessageTypeReply)
	ia := reply.Options.OneIANA()
	if a := ia.Options.OneAddress(); !a.IPv6Addr.Equal(client.Addr.AsSlice()) || a.ValidLifetime != time.Hour || ia.T1 != 30*time.Minute || ia.IaId != request.Options.OneIANA().IaId {
		t.Errorf("granted %s", reply.Summary())
	}
	if reply.Options.DNS()[0].String() != "2620:fe::9" || reply.Options.DomainSearchList().Labels[0] != "example.org" {
		t.Errorf("told %s", reply.Summary())
	}
	request.MessageType = dhcpv6.MessageTypeRenew
	answered(t, request, dhcpv6.MessageTypeReply)
	// A second identity, and a prefix, are not to be had.
	request.AddOption(&dhcpv6.OptIANA{IaId: [4]byte{9}})
	request.AddOption(&dhcpv6.OptIAPD{IaId: [4]byte{8}})
	reply = answered(t, request, dhcpv6.MessageTypeReply)
	if s := reply.Options.IANA()[1].Options.Status(); s == nil || s.StatusCode != iana.StatusNoAddrsAvail {
		t.Errorf("a second address: %s", reply.Summary())
	}
	if s := reply.Options.OneIAPD().Options.Status(); s == nil || s.StatusCode != iana.StatusNoPrefixAvail {
		t.Errorf("a prefix: %s", reply.Summary())
	}
}

func answered(t *testing.T, m *dhcpv6.Message, want dhcpv6.MessageType) *dhcpv6.Message {
	t.Helper()
	o := Answer(&subnet, client, m.ToBytes())
	if o.Verdict != dhcp.Answered {
		t.Fatalf("%+v", o)
	}
	r, err := dhcpv6.MessageFromBytes(o.Payload)
	if err != nil || r.MessageType != want || r.TransactionID != m.TransactionID {
		t.Fatalf("%v %s, want %s", err, r.Summary(), want)
	}
	return r
}

// FuzzAnswer: no message makes us panic, say more than fits, or give an address that is not this client's.
func FuzzAnswer(f *testing.F) {
	if m, err := dhcpv6.NewSolicit(client.MAC[:]); err == nil {
		for _, t := range []dhcpv6.MessageType{1, 4, 6, 11} {
			m.MessageType = t
			f.Add(m.ToBytes())
		}
		m.AddOption(dhcpv6.OptServerID(serverID))
		for _, t := range []dhcpv6.MessageType{3, 5, 8, 9} {
			m.MessageType = t
			f.Add(m.ToBytes())
		}
	}
	f.Add([]byte("\v000\x00\x01\x00\x06\x00\x040000")) // an identifier that is opaque to us: a UUID of 4 bytes
	f.Add(bomb())
	f.Fuzz(func(t *testing.T, request []byte) {
		o := Answer(&subnet, client, request)
		if (o.Verdict == dhcp.Answered) != (o.Payload != nil) || o.Reply == "" {
			t.Fatalf("%+v", o)
		}
		if o.Payload == nil {
			return
		}
		os, err := options(o.Payload[4:])
		if err != nil || len(o.Payload) > room {
			t.Fatalf("%d bytes, %v", len(o.Payload), err)
		}
		for _, x := range os.Get(dhcpv6.OptionIANA) {
			var ia dhcpv6.OptIANA
			if err := ia.FromBytes(x.ToBytes()); err != nil {
				t.Fatal(err)
			}
			for _, a := range ia.Options.Addresses() {
				if a.ValidLifetime > 0 && !a.IPv6Addr.Equal(client.Addr.AsSlice()) {
					t.Fatalf("gives %s", a)
				}
			}
		}
	})
}

// bomb is a solicitation whose domain search list, compressed, takes 140 ms and 170 MB to expand.
func bomb() []byte {
	name := strings.Repeat("\x01a", 400) + "\x00"
	list := name + strings.Repeat("\xc0\x00", 500)
	b := append([]byte{1, 1, 2, 3, 0, 1, 0, 4, 0, 3, 0, 1}, 0, 24, byte(len(list)>>8), byte(len(list)))
	return append(b, list...)
}

// TestOptionsStayClosed: what a client puts into options that do not concern us costs nothing.
func TestOptionsStayClosed(t *testing.T) {
	request := bomb()
	if o := Answer(&subnet, client, request); o.Verdict != dhcp.Answered {
		t.Fatalf("%+v", o)
	}
	if n := testing.AllocsPerRun(10, func() { Answer(&subnet, client, request) }); n > 300 {
		t.Errorf("%v allocations for one message", n)
	}
}
