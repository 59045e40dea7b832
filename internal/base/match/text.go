package match

import (
	"fmt"
	"strings"
)

// String lists the fields that are set, as name=value, by the names of Mask.
func (k Key) String() string { return k.Text(All) }

// Text lists the fields of the key that are in m; fields that are zero, and
// therefore absent from the packet, are left out.
func (k Key) Text(m Mask) string {
	var b strings.Builder
	f := func(field Mask, set bool, format string, v any) {
		if m&field == 0 || !set {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, field.String()+"="+format, v)
	}
	isICMP := k.EthType != 0x0806 && (k.Proto == 1 || k.Proto == 58)
	f(InPort, true, "%d", k.InPort)
	f(TunKey, k.TunKey != 0, "%#x", k.TunKey)
	f(EthSrc, true, "%s", k.EthSrc)
	f(EthDst, true, "%s", k.EthDst)
	f(VLAN, k.VLAN != 0, "%d", k.VLAN&0xfff)
	f(EthType, true, "%#04x", k.EthType)
	f(Src, k.Src != Addr{}, "%s", k.Src)
	f(Dst, k.Dst != Addr{}, "%s", k.Dst)
	f(Proto, k.Proto != 0, "%d", k.Proto)
	f(TOS, k.TOS != 0, "%#x", k.TOS)
	f(Frag, k.Frag != 0, "%d", k.Frag)
	if isICMP {
		f(SrcPort, true, "%s", fmt.Sprintf("type%d/code%d", k.SrcPort>>8, k.SrcPort&0xff))
		f(DstPort, k.DstPort != 0, "id%d", k.DstPort)
	} else {
		f(SrcPort, k.SrcPort != 0, "%d", k.SrcPort)
		f(DstPort, k.DstPort != 0, "%d", k.DstPort)
	}
	if m&DstPort == 0 {
		f(DHCP, DHCPPort(k.DstPort) != 0, "%d", k.DstPort)
	}
	return b.String()
}
