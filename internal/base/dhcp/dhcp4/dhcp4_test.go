package dhcp4

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/dhcp"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

var (
	server = netip.MustParseAddr("10.0.0.1")
	client = dhcp.Client{MAC: match.MAC{2, 0, 0, 0, 0, 5}, Addr: netip.MustParseAddr("10.0.0.5")}
	subnet = dhcp.Subnet{
		Prefix: netip.MustParsePrefix("10.0.0.0/20"), Gateway: server, DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")},
		Domain: "example.org", MTU: 1400, Lease: 3600,
		Routes:  []dhcp.Route{{Dst: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.0.0.254")}},
		Options: []dhcp.Option{{Code: 42, Data: []byte{10, 0, 0, 3}}},
	}
)

// A whole conversation with the library's own client side.
func TestConversation(t *testing.T) {
	discover, err := dhcpv4.NewDiscovery(client.MAC[:])
	if err != nil {
		t.Fatal(err)
	}
	offer := answered(t, discover.ToBytes(), dhcpv4.MessageTypeOffer)
	request, err := dhcpv4.NewRequestFromOffer(offer)
	if err != nil {
		t.Fatal(err)
	}
	ack := answered(t, request.ToBytes(), dhcpv4.MessageTypeAck)
	if !ack.YourIPAddr.Equal(client.Addr.AsSlice()) || ack.TransactionID != request.TransactionID {
		t.Errorf("granted %s", ack.Summary())
	}
	if ones, _ := ack.SubnetMask().Size(); ones != 20 || ack.BroadcastAddress().String() != "10.0.15.255" || ack.DomainName() != "example.org" ||
		ack.Router()[0].String() != "10.0.0.1" || ack.DNS()[0].String() != "9.9.9.9" || ack.NTPServers()[0].String() != "10.0.0.3" {
		t.Errorf("told %s", ack.Summary())
	}
	if ack.IPAddressLeaseTime(0) != time.Hour || ack.IPAddressRenewalTime(0) != 30*time.Minute || ack.IPAddressRebindingTime(0) != 3150*time.Second {
		t.Errorf("times %s", ack.Summary())
	}
	rs := ack.ClasslessStaticRoute()
	if len(rs) != 2 || rs[0].String() != "route to 10.9.0.0/16 via 10.0.0.254" || rs[1].String() != "route to 0.0.0.0/0 via 10.0.0.1" {
		t.Errorf("routes %v", rs)
	}
	renew, err := dhcpv4.NewRenewFromAck(ack)
	if err != nil {
		t.Fatal(err)
	}
	renewed := answered(t, renew.ToBytes(), dhcpv4.MessageTypeAck)
	if !renewed.ClientIPAddr.Equal(client.Addr.AsSlice()) {
		t.Errorf("renewed %s", renewed.Summary())
	}
	renew.ClientIPAddr = net.IPv4(10, 0, 0, 6)
	answered(t, renew.ToBytes(), dhcpv4.MessageTypeNak)
}

func answered(t *testing.T, request []byte, want dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	t.Helper()
	o := Answer(&subnet, server, client, request)
	if o.Verdict != dhcp.Answered {
		t.Fatalf("%+v", o)
	}
	m, err := dhcpv4.FromBytes(o.Payload)
	if err != nil || m.MessageType() != want {
		t.Fatalf("%v %s, want %s", err, m.MessageType(), want)
	}
	return m
}

// TestAnswersFit: whatever a subnet says and a client asks, the answer is no longer than the client takes, and
// what it needs to live is there.
func TestAnswersFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := subnet
		for i := range rapid.IntRange(0, 32).Draw(t, "routes") {
			s.Routes = append(s.Routes[:len(s.Routes):len(s.Routes)], dhcp.Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), 24), Via: server})
		}
		for i := range rapid.IntRange(0, 32).Draw(t, "options") {
			s.Options = append(s.Options[:len(s.Options):len(s.Options)], dhcp.Option{Code: uint16(130 + i), Data: make([]byte, rapid.IntRange(1, 255).Draw(t, "len"))})
		}
		m, err := dhcpv4.NewDiscovery(client.MAC[:])
		if err != nil {
			t.Fatal(err)
		}
		limit := 576
		if n := rapid.IntRange(0, 0xffff).Draw(t, "max"); n > 0 {
			m.UpdateOption(dhcpv4.OptMaxMessageSize(uint16(n)))
			limit = min(max(n, 576), 1500)
		}
		m.UpdateOption(dhcpv4.OptClientIdentifier(make([]byte, rapid.IntRange(1, 255).Draw(t, "id"))))
		o := Answer(&s, server, client, m.ToBytes())
		a, err := dhcpv4.FromBytes(o.Payload)
		if err != nil || len(o.Payload)+headers > limit {
			t.Fatalf("%d bytes, the client takes %d: %v", len(o.Payload)+headers, limit, err)
		}
		if a.SubnetMask() == nil || len(a.Router()) == 0 || a.IPAddressLeaseTime(0) == 0 || !a.YourIPAddr.Equal(client.Addr.AsSlice()) {
			t.Fatalf("lacks what a client needs: %s", a.Summary())
		}
	})
}

// FuzzAnswer: no message makes us panic, or say anything but this client's own address.
func FuzzAnswer(f *testing.F) {
	if m, err := dhcpv4.NewDiscovery(client.MAC[:]); err == nil {
		f.Add(m.ToBytes())
		m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(client.Addr.AsSlice()))
		f.Add(m.ToBytes())
		m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeInform))
		f.Add(m.ToBytes())
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		o := Answer(&subnet, server, client, request)
		if (o.Verdict == dhcp.Answered) != (o.Payload != nil) || o.Reply == "" {
			t.Fatalf("%+v", o)
		}
		if o.Payload == nil {
			return
		}
		m, err := dhcpv4.FromBytes(o.Payload)
		if err != nil || len(o.Payload)+headers > maxMaximum {
			t.Fatalf("%d bytes, %v", len(o.Payload), err)
		}
		if a := m.YourIPAddr; !a.IsUnspecified() && !a.Equal(client.Addr.AsSlice()) {
			t.Fatalf("gives %s", a)
		}
	})
}
