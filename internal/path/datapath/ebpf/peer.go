package ebpf

import (
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// iflaTargetNetNSID is IFLA_TARGET_NETNSID: ask about an interface of another namespace.
const iflaTargetNetNSID = 46

// peerElsewhere returns the MAC of a veth's peer that lives in another namespace.
func peerElsewhere(l netlink.Link) (mac [6]byte, ok bool) {
	if _, veth := l.(*netlink.Veth); !veth || l.Attrs().NetNsID < 0 {
		return mac, false
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(l.Attrs().ParentIndex)
	req.AddData(info)
	req.AddData(nl.NewRtAttr(iflaTargetNetNSID, nl.Uint32Attr(uint32(l.Attrs().NetNsID))))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil || len(msgs) != 1 {
		return mac, false
	}
	peer, err := netlink.LinkDeserialize(nil, msgs[0])
	if err != nil || len(peer.Attrs().HardwareAddr) != len(mac) {
		return mac, false
	}
	return [6]byte(peer.Attrs().HardwareAddr), true
}
