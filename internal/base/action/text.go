package action

import (
	"fmt"
	"strings"
)

// String is the action as people write it: name, or name(value).
func (a Action) String() string {
	switch a.Op {
	case SetEthSrc:
		return fmt.Sprintf("set_eth_src(%s)", a.MAC)
	case SetEthDst:
		return fmt.Sprintf("set_eth_dst(%s)", a.MAC)
	case SetSrc:
		return fmt.Sprintf("set_src(%s)", a.Addr)
	case SetDst:
		return fmt.Sprintf("set_dst(%s)", a.Addr)
	case SetTOS:
		return fmt.Sprintf("set_tos(%#x)", a.Value)
	case SetSrcPort:
		return fmt.Sprintf("set_src_port(%d)", a.Value)
	case SetDstPort:
		return fmt.Sprintf("set_dst_port(%d)", a.Value)
	case DecTTL:
		return "dec_ttl"
	case CheckLen:
		return fmt.Sprintf("check_len(%d)", a.Value)
	case PushVLAN:
		return fmt.Sprintf("push_vlan(%d)", a.Value&0xfff)
	case PopVLAN:
		return "pop_vlan"
	case Forward:
		return fmt.Sprintf("forward(%s)", a.VPort)
	case Output:
		return fmt.Sprintf("output(%d)", a.Port)
	case Tunnel:
		return fmt.Sprintf("tunnel(%d, peer %s, key %#x)", a.Port, a.Addr, a.Key)
	}
	return fmt.Sprintf("op(%d)", a.Op)
}

// String is "drop", or the actions in order.
func (p Physical) String() string { return text(p) }

// String is "drop", or the actions in order.
func (v Virtual) String() string { return text(v) }

func text(as []Action) string {
	if len(as) == 0 {
		return "drop"
	}
	s := make([]string, len(as))
	for i, a := range as {
		s[i] = a.String()
	}
	return strings.Join(s, ", ")
}
