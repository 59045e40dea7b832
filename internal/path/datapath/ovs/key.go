package ovs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// ethMin is the least EtherType; what is less is an 802.3 length.
const ethMin = 0x600

// holds says whether the kernel's key tells packets with key k from all others; err says what it cannot.
func holds(k *match.Key) error {
	ip := k.EthType == packet.EthTypeIPv4 || k.EthType == packet.EthTypeIPv6
	switch {
	case k.InPort == portLocal || k.InPort >= maxPorts:
		return errors.New("no such port can be")
	case k.EthType < ethMin:
		return errors.New("802.3 lengths are not in the kernel's key")
	case k.EthType == packet.EthTypeVLAN || k.EthType == packet.EthTypeQinQ:
		return errors.New("what follows a second VLAN tag would be in the kernel's key")
	case k.EthType == packet.EthTypeARP && k.Proto == 0:
		return errors.New("ARP of other protocols is not told apart")
	case ip && k.Frag != match.FragLater && isEcho(k):
		return errors.New("ICMP echo identifiers are not in the kernel's key")
	case k.EthType == packet.EthTypeIPv6 && k.Frag == match.FragLater:
		return errors.New("protocols of later IPv6 fragments are not in the kernel's key")
	}
	return nil
}

func isEcho(k *match.Key) bool {
	switch t := k.SrcPort >> 8; k.Proto {
	case packet.ProtoICMP:
		return k.EthType == packet.EthTypeIPv4 && (t == 0 || t == 8)
	case packet.ProtoICMPv6:
		return k.EthType == packet.EthTypeIPv6 && (t == 128 || t == 129)
	}
	return false
}

// keyWriter writes a key's attributes, or those of its mask: all fields of match.Key exactly, and nothing else.
type keyWriter struct {
	m    *message
	mask bool
}

var ones = bytes.Repeat([]byte{0xff}, 64)

// exact writes an attribute that is matched as a whole.
func (w keyWriter) exact(typ uint16, value []byte) {
	if w.mask {
		value = ones[:len(value)]
	}
	w.m.attr(typ, value)
}

func (w keyWriter) be16(typ, value uint16) {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], value)
	w.exact(typ, b[:])
}

// partly writes an attribute of which mask is matched.
func (w keyWriter) partly(typ uint16, value, mask []byte) {
	if w.mask {
		value = mask
	}
	w.m.attr(typ, value)
}

// Masks of structs of which not all fields are in match.Key: TTL, IPv6 label, hardware addresses of ARP.
var (
	maskIPv4 = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0xff}
	maskIPv6 = append(append(bytes.Repeat([]byte{0xff}, 32), 0, 0, 0, 0), 0xff, 0xff, 0, 0xff)
	maskARP  = append(append(bytes.Repeat([]byte{0xff}, 8), 0, 0xff), make([]byte, lenARP-10)...) // the operation is one byte there
	maskTun4 = make([]byte, 4)
)

// tunnelID is a tunnel key as the kernel has it.
func tunnelID(key uint32) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, 8), uint64(key))
}

func parseTunnelID(id []byte) uint32 { return uint32(binary.BigEndian.Uint64(id)) }

// key writes k. Packets from a tunnel carry TunKey.
func (w keyWriter) key(k *match.Key, tunnel bool) {
	var b [8]byte
	if tunnel {
		at := w.m.nest(keyTunnel)
		w.exact(tunID, tunnelID(k.TunKey))
		w.partly(tunIPv4Dst, []byte{127, 0, 0, 1}, maskTun4) // the kernel wants one, any
		w.partly(tunTTL, []byte{64}, []byte{0})
		w.m.close(at)
	}
	ne.PutUint32(b[:], k.InPort)
	w.exact(keyInPort, b[:4])
	var eth [lenEthernet]byte
	copy(eth[:], k.EthSrc[:])
	copy(eth[6:], k.EthDst[:])
	w.exact(keyEthernet, eth[:])
	if k.VLAN == 0 {
		w.network(k)
		return
	}
	w.be16(keyEtherType, packet.EthTypeVLAN)
	w.be16(keyVLAN, k.VLAN)
	at := w.m.nest(keyEncap)
	w.network(k)
	w.m.close(at)
}

func (w keyWriter) network(k *match.Key) {
	w.be16(keyEtherType, k.EthType)
	switch k.EthType {
	case packet.EthTypeARP:
		var h [lenARP]byte
		copy(h[:], k.Src[12:])
		copy(h[4:], k.Dst[12:])
		h[9] = k.Proto
		w.partly(keyARP, h[:], maskARP)
	case packet.EthTypeIPv4:
		var h [lenIPv4]byte
		copy(h[:], k.Src[12:])
		copy(h[4:], k.Dst[12:])
		h[8], h[9], h[11] = k.Proto, k.TOS, k.Frag
		w.partly(keyIPv4, h[:], maskIPv4)
		w.transport(k)
	case packet.EthTypeIPv6:
		var h [lenIPv6]byte
		copy(h[:], k.Src[:])
		copy(h[16:], k.Dst[:])
		h[36], h[37], h[39] = k.Proto, k.TOS, k.Frag
		w.partly(keyIPv6, h[:], maskIPv6)
		w.transport(k)
	}
}

func (w keyWriter) transport(k *match.Key) {
	if k.Frag == match.FragLater {
		return
	}
	var ports [4]byte
	binary.BigEndian.PutUint16(ports[:], k.SrcPort)
	binary.BigEndian.PutUint16(ports[2:], k.DstPort)
	v4 := k.EthType == packet.EthTypeIPv4
	switch {
	case k.Proto == packet.ProtoTCP:
		w.exact(keyTCP, ports[:])
		w.partly(keyTCPFlags, []byte{0, 0}, []byte{0, 0})
	case k.Proto == packet.ProtoUDP:
		w.exact(keyUDP, ports[:])
	case k.Proto == packet.ProtoSCTP:
		w.exact(keySCTP, ports[:])
	case k.Proto == packet.ProtoICMP && v4:
		w.exact(keyICMP, ports[:2]) // type, code
	case k.Proto == packet.ProtoICMPv6 && !v4:
		w.exact(keyICMPv6, ports[:2])
		if t := ports[0]; t == 135 || t == 136 {
			var nd [lenND]byte
			w.partly(keyND, nd[:], nd[:])
		}
	}
}

// errForeign is a flow that this package has not written.
var errForeign = errors.New("not a flow of this datapath's owner")

// parseKey reads a flow's key and mask back. scratch is overwritten.
func parseKey(key, mask []byte, scratch *message) (k match.Key, err error) {
	tunnel, err := keyFields(&k, key)
	if err != nil {
		return k, err
	}
	scratch.b = scratch.b[:0]
	keyWriter{scratch, true}.key(&k, tunnel)
	if !covers(mask, scratch.b) {
		return k, errForeign
	}
	return k, nil
}

// covers reports whether have matches all that want does, and in the same way.
func covers(have, want []byte) bool {
	for as := (attrs{b: want}); as.next(); {
		switch got := find(have, as.typ); {
		case as.typ == keyEncap || as.typ == keyTunnel:
			if !covers(got, as.data) {
				return false
			}
		case got == nil:
			if !zero(as.data) {
				return false
			}
		case !bytes.Equal(got, as.data):
			return false
		}
	}
	return true
}

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// keyFields fills k from attributes. Those that match.Key has no field for must be zero.
func keyFields(k *match.Key, b []byte) (tunnel bool, err error) {
	as := attrs{b: b}
	var seen uint64
	for as.next() {
		d := as.data
		if bit := uint64(1) << (as.typ & 63); as.typ < 64 {
			if seen&bit != 0 || !belongs(k, as.typ) {
				return tunnel, errForeign
			}
			seen |= bit
		}
		if n, ok := keyLen[as.typ]; ok && len(d) != n {
			return tunnel, fmt.Errorf("netlink: key attribute %d of %d bytes", as.typ, len(d))
		}
		switch as.typ {
		case keyInPort:
			k.InPort = ne.Uint32(d)
		case keyTunnel:
			tunnel = true
			if id := find(d, tunID); len(id) == 8 {
				k.TunKey = uint32(binary.BigEndian.Uint64(id))
			}
		case keyEthernet:
			k.EthSrc, k.EthDst = match.MAC(d[:6]), match.MAC(d[6:])
		case keyVLAN:
			k.VLAN = binary.BigEndian.Uint16(d)
		case keyEtherType:
			if t := binary.BigEndian.Uint16(d); k.EthType == 0 {
				k.EthType = t
			}
		case keyEncap:
			k.EthType = 0
			if inner, err := keyFields(k, d); err != nil || inner {
				return tunnel, cmp.Or(err, errForeign)
			}
		case keyIPv4, keyARP:
			k.Src, k.Dst = packet.Addr4(d), packet.Addr4(d[4:])
			if as.typ == keyARP {
				k.Proto = d[9]
				break
			}
			k.Proto, k.TOS, k.Frag = d[8], d[9], d[11]
		case keyIPv6:
			k.Src, k.Dst = match.Addr(d[:16]), match.Addr(d[16:32])
			k.Proto, k.TOS, k.Frag = d[36], d[37], d[39]
		case keyTCP, keyUDP, keySCTP:
			k.SrcPort, k.DstPort = binary.BigEndian.Uint16(d), binary.BigEndian.Uint16(d[2:])
		case keyICMP, keyICMPv6:
			k.SrcPort = binary.BigEndian.Uint16(d)
		default:
			if !zero(d) {
				return tunnel, errForeign
			}
		}
	}
	return tunnel, as.err
}

// belongs reports whether an attribute of that type follows what has been read into k, as the kernel writes them.
func belongs(k *match.Key, typ uint16) bool {
	v4, v6 := k.EthType == packet.EthTypeIPv4, k.EthType == packet.EthTypeIPv6
	ports := (v4 || v6) && k.Frag != match.FragLater
	switch typ {
	case keyEncap:
		return k.EthType == packet.EthTypeVLAN && k.VLAN != 0
	case keyARP:
		return k.EthType == packet.EthTypeARP
	case keyIPv4:
		return v4
	case keyIPv6:
		return v6
	case keyTCP:
		return ports && k.Proto == packet.ProtoTCP
	case keyUDP:
		return ports && k.Proto == packet.ProtoUDP
	case keySCTP:
		return ports && k.Proto == packet.ProtoSCTP
	case keyICMP:
		return ports && v4 && k.Proto == packet.ProtoICMP
	case keyICMPv6:
		return ports && v6 && k.Proto == packet.ProtoICMPv6
	}
	return true
}

// keyLen are the lengths of attributes that keyFields looks into.
var keyLen = map[uint16]int{keyInPort: 4, keyEthernet: lenEthernet, keyVLAN: 2, keyEtherType: 2, keyIPv4: lenIPv4, keyIPv6: lenIPv6,
	keyARP: lenARP, keyTCP: 4, keyUDP: 4, keySCTP: 4, keyICMP: 2, keyICMPv6: 2}
