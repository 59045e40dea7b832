package packet

import (
	"fmt"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
)

// Check reports whether every packet with key k has the fields that the actions rewrite: then
// Rewriter.Apply does not fail with ErrRewrite, else it does. The error wraps ErrRewrite. Of more
// than two VLAN tags a key says nothing; a third PopVLAN is refused. TTLs are not in a
// key and not checked.
func Check(k *match.Key, as action.Physical) error {
	tags := 0
	if k.VLAN != 0 {
		tags++
		if isVLAN(k.EthType) {
			tags++
		}
	}
	for i := range as {
		ok := true
		switch as[i].Op {
		case action.PushVLAN:
			tags++
		case action.PopVLAN:
			tags--
			ok = tags >= 0
		default:
			ok = applicable(k, &as[i])
		}
		if !ok {
			return fmt.Errorf("%w: action %d", ErrRewrite, i)
		}
	}
	return nil
}

// applicable is Check for one action that is not about VLANs.
func applicable(k *match.Key, a *action.Action) bool {
	is4, is6 := k.EthType == EthTypeIPv4, k.EthType == EthTypeIPv6
	switch a.Op {
	case action.SetEthSrc, action.SetEthDst, action.Output, action.Tunnel:
		return true
	case action.SetSrc, action.SetDst:
		return is4 && a.Addr.Is4() || is6 && !a.Addr.Is4()
	case action.SetTOS, action.DecTTL, action.CheckLen:
		return is4 || is6
	case action.SetSrcPort, action.SetDstPort:
		switch {
		case !is4 && !is6:
			return false
		case k.Frag == match.FragLater:
			return true // and does nothing
		}
		switch k.Proto {
		case ProtoTCP, ProtoUDP:
			return true
		case ProtoSCTP:
			return k.Frag == match.FragNone
		case ProtoICMP, ProtoICMPv6:
			return a.Op == action.SetDstPort && is4 == (k.Proto == ProtoICMP) && isEcho(k.Proto, uint8(k.SrcPort>>8))
		}
	}
	return false
}
