package ovs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// maxActions is how long a list may become: half of what the kernel takes.
const maxActions = 16 << 10

var (
	errLateTTL  = errors.New("the TTL is decremented after an output: the kernel would find out too late that it expires")
	errLater    = errors.New("later fragments have no ports, and the kernel would not notice")
	errTooLong  = errors.New("too many")
	errOp       = errors.New("not a physical action")
	errDecTTLs  = errors.New("TTL decremented too often")
	errCheckLen = errors.New("a length that is not checked before all else, or against nothing")
	vlanTPID    = binary.BigEndian.AppendUint16(nil, packet.EthTypeVLAN)
	tunnelTTL   = []byte{64}
	maxDecTTL   = 255
	decTTLNotes = 4 // bytes of user data
	lengthNotes = 2
)

// actions writes as for packets with key k, whose port's misses go to pid. Errors wrap datapath.ErrActions.
//
// The DecTTLs come first: when one finds a TTL of 1, the packet goes to user space as if nothing had been
// done to it yet. Each carries a note for the way back: how many came before it, to
// restore the TTL; and its place in the list, to give the list back as it was. A CheckLen is the only action of the list, and has the others
// in it.
func (m *message) actions(k *match.Key, as action.Physical, pid uint32) error {
	if err := m.tryActions(k, as, pid); err != nil {
		return fmt.Errorf("%w: %w", datapath.ErrActions, err)
	}
	return nil
}

func (m *message) tryActions(k *match.Key, as action.Physical, pid uint32) error {
	if err := packet.Check(k, as); err != nil {
		return err
	}
	most := as.MaxLen()
	if most == 0 {
		return m.list(k, as, pid)
	}
	fits, check := m.checkLen(pid, most)
	err := m.list(k, as[1:], pid)
	m.close(fits)
	m.close(check)
	return err
}

// list writes what no length is checked for.
func (m *message) list(k *match.Key, as action.Physical, pid uint32) error {
	start, decs, output := len(m.b), 0, false
	for i := range as {
		switch op := as[i].Op; {
		case op == action.Output || op == action.Tunnel:
			output = true
		case op == action.CheckLen:
			return errCheckLen
		case op == action.DecTTL && output:
			return errLateTTL
		case op == action.DecTTL && decs == maxDecTTL:
			return errDecTTLs
		case op == action.DecTTL:
			m.decTTL(pid, decs, i)
			decs++
		}
	}
	for i := range as {
		if err := m.action(k, &as[i]); err != nil {
			return err
		}
		if len(m.b)-start > maxActions {
			return errTooLong
		}
	}
	return nil
}

// checkLen writes the check, with what is done to packets that are too long, and leaves the list of what is done to others open, in fits,
// and the whole, in check. The kernel measures frames: a tag is not in them then, and padding is none of packets that are so long. The note is the
// length itself, which with a header may be more than the kernel can be told.
func (m *message) checkLen(pid uint32, most uint16) (fits, check int) {
	var note [2]byte
	ne.PutUint16(note[:], most)
	check = m.nest(actCheckLen)
	at := m.nest(checkLenMost)
	m.b = ne.AppendUint16(m.b, frameLen(most))
	m.close(at)
	greater := m.nest(checkLenGreater)
	m.userspace(pid, note[:])
	m.close(greater)
	return m.nest(checkLenFits), check
}

// frameLen is what the kernel is told of a CheckLen.
func frameLen(most uint16) uint16 { return uint16(min(int(most)+packet.EthLen, math.MaxUint16)) }

// userspace writes that the packet goes to the port's socket, with a note.
func (m *message) userspace(pid uint32, note []byte) {
	user := m.nest(actUserspace)
	m.u32(userPID, pid)
	m.attr(userData, note)
	m.close(user)
}

// decTTL writes the decrement and what is done instead when the TTL is 1.
func (m *message) decTTL(pid uint32, before, at int) {
	var note [4]byte
	ne.PutUint16(note[:], uint16(before))
	ne.PutUint16(note[2:], uint16(at))
	dec := m.nest(actDecTTL)
	instead := m.nest(decTTLAction)
	m.userspace(pid, note[:])
	m.close(instead)
	m.close(dec)
}

func (m *message) action(k *match.Key, a *action.Action) error {
	switch a.Op {
	case action.DecTTL: // has come already
	case action.Output:
		m.u32(actOutput, a.Port)
	case action.Tunnel:
		m.tunnel(a)
		m.u32(actOutput, a.Port)
	case action.PushVLAN:
		b := [4]byte{vlanTPID[0], vlanTPID[1]}
		binary.BigEndian.PutUint16(b[2:], a.Value|match.VLANPresent)
		m.attr(actPushVLAN, b[:])
	case action.PopVLAN:
		m.attr(actPopVLAN, nil)
	case action.SetEthSrc:
		m.set(keyEthernet, lenEthernet, 0, a.MAC[:])
	case action.SetEthDst:
		m.set(keyEthernet, lenEthernet, 6, a.MAC[:])
	case action.SetSrc:
		m.setAddr(a.Addr, 0)
	case action.SetDst:
		m.setAddr(a.Addr, 1)
	case action.SetTOS:
		if k.EthType == packet.EthTypeIPv4 {
			m.set(keyIPv4, lenIPv4, 9, []byte{uint8(a.Value)})
		} else {
			m.set(keyIPv6, lenIPv6, 37, []byte{uint8(a.Value)})
		}
	case action.SetSrcPort, action.SetDstPort:
		if k.Frag == match.FragLater {
			return errLater
		}
		at := 0
		if a.Op == action.SetDstPort {
			at = 2
		}
		m.set(portsKey(k.Proto), 4, at, binary.BigEndian.AppendUint16(make([]byte, 0, 2), a.Value))
	default:
		return errOp
	}
	return nil
}

func portsKey(proto uint8) uint16 {
	switch proto {
	case packet.ProtoTCP:
		return keyTCP
	case packet.ProtoUDP:
		return keyUDP
	}
	return keySCTP
}

// set writes the rewriting of one field: in a struct of length n the bytes from at on.
func (m *message) set(typ uint16, n, at int, value []byte) {
	var b [2 * lenIPv6]byte
	copy(b[at:], value)
	copy(b[n+at:], ones[:len(value)])
	set := m.nest(actSetMasked)
	m.attr(typ, b[:2*n])
	m.close(set)
}

// setAddr rewrites the source (which 0) or destination address (1).
func (m *message) setAddr(a match.Addr, which int) {
	if a.Is4() {
		m.set(keyIPv4, lenIPv4, 4*which, a[12:])
	} else {
		m.set(keyIPv6, lenIPv6, 16*which, a[:])
	}
}

// tunnel writes where the next output goes.
func (m *message) tunnel(a *action.Action) {
	set := m.nest(actSet)
	tun := m.nest(keyTunnel)
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], uint64(a.Key))
	m.attr(tunID, id[:])
	if a.Addr.Is4() {
		m.attr(tunIPv4Dst, a.Addr[12:])
	} else {
		m.attr(tunIPv6Dst, a.Addr[:])
		m.attr(tunChecksum, nil) // UDP over IPv6 needs one (RFC 8200, 8.1)
	}
	m.attr(tunTTL, tunnelTTL)
	m.close(tun)
	m.close(set)
}

// parseActions appends the list that was written as b.
func parseActions(dst action.Physical, b []byte) (action.Physical, error) {
	as := attrs{b: b}
	if !as.next() || as.typ != actCheckLen {
		return parseList(dst, b)
	}
	check := as.data
	note, most := find(find(find(check, checkLenGreater), actUserspace), userData), find(check, checkLenMost)
	if len(note) != lengthNotes || len(most) != 2 || ne.Uint16(most) != frameLen(ne.Uint16(note)) || as.next() || as.err != nil {
		return dst, errForeign
	}
	return parseList(append(dst, action.Action{Op: action.CheckLen, Value: ne.Uint16(note)}), find(check, checkLenFits))
}

// parseList appends what list has written.
func parseList(dst action.Physical, b []byte) (action.Physical, error) {
	start := len(dst)
	var tunnel *action.Action
	places := make([]int, 0, 4) // of DecTTLs
	as := attrs{b: b}
	for as.next() {
		a := action.Action{}
		var err error
		switch d := as.data; as.typ {
		case actOutput:
			if len(d) != 4 {
				return dst, errForeign
			}
			if a.Op = action.Output; tunnel != nil {
				a, tunnel = *tunnel, nil
			}
			a.Port = ne.Uint32(d)
		case actPushVLAN:
			if len(d) != 4 {
				return dst, errForeign
			}
			a.Op, a.Value = action.PushVLAN, binary.BigEndian.Uint16(d[2:])&^match.VLANPresent
		case actPopVLAN:
			a.Op = action.PopVLAN
		case actSetMasked:
			a, err = parseSet(d)
		case actSet:
			tunnel, err = parseTunnel(d)
			if err != nil {
				return dst, err
			}
			continue
		case actDecTTL:
			note := find(find(find(d, decTTLAction), actUserspace), userData)
			if len(note) != decTTLNotes {
				return dst, errForeign
			}
			places = append(places, int(ne.Uint16(note[2:])))
			continue
		default:
			return dst, errForeign
		}
		if err != nil {
			return dst, err
		}
		dst = append(dst, a)
	}
	for _, at := range places {
		if at += start; at > len(dst) {
			return dst, errForeign
		}
		dst = slices.Insert(dst, at, action.Action{Op: action.DecTTL})
	}
	return dst, as.err
}

// parseSet reads what set has written.
func parseSet(b []byte) (a action.Action, err error) {
	as := attrs{b: b}
	if !as.next() {
		return a, errForeign
	}
	n := len(as.data) / 2
	value, mask := as.data[:n], as.data[n:]
	at := 0 // of the field
	for at < len(mask) && mask[at] == 0 {
		at++
	}
	field := func(op action.Op, size int) []byte {
		a.Op = op
		if at+size > n || !zero(mask[at+size:]) || string(mask[at:at+size]) != string(ones[:size]) {
			a.Op = 0
			return ones[:16]
		}
		return value[at : at+size]
	}
	switch typ := as.typ; {
	case typ == keyEthernet && n == lenEthernet && at == 0:
		a.MAC = match.MAC(field(action.SetEthSrc, 6))
	case typ == keyEthernet && n == lenEthernet && at == 6:
		a.MAC = match.MAC(field(action.SetEthDst, 6))
	case typ == keyIPv4 && n == lenIPv4 && at == 0:
		a.Addr = packet.Addr4(field(action.SetSrc, 4))
	case typ == keyIPv4 && n == lenIPv4 && at == 4:
		a.Addr = packet.Addr4(field(action.SetDst, 4))
	case typ == keyIPv6 && n == lenIPv6 && at == 0:
		a.Addr = match.Addr(field(action.SetSrc, 16))
	case typ == keyIPv6 && n == lenIPv6 && at == 16:
		a.Addr = match.Addr(field(action.SetDst, 16))
	case typ == keyIPv4 && n == lenIPv4 && at == 9, typ == keyIPv6 && n == lenIPv6 && at == 37:
		a.Value = uint16(field(action.SetTOS, 1)[0])
	case (typ == keyTCP || typ == keyUDP || typ == keySCTP) && n == 4 && at == 0:
		a.Value = binary.BigEndian.Uint16(field(action.SetSrcPort, 2))
	case (typ == keyTCP || typ == keyUDP || typ == keySCTP) && n == 4 && at == 2:
		a.Value = binary.BigEndian.Uint16(field(action.SetDstPort, 2))
	}
	if a.Op == 0 {
		return a, errForeign
	}
	return a, as.err
}

// parseTunnel reads what tunnel has written, and what the kernel adds.
func parseTunnel(b []byte) (*action.Action, error) {
	tun := find(b, keyTunnel)
	id, v4, v6 := find(tun, tunID), find(tun, tunIPv4Dst), find(tun, tunIPv6Dst)
	if len(id) != 8 || len(v4) != 4 && len(v6) != 16 {
		return nil, errForeign
	}
	a := &action.Action{Op: action.Tunnel, Key: uint32(binary.BigEndian.Uint64(id))}
	if len(v4) == 4 {
		a.Addr = packet.Addr4(v4)
	} else {
		a.Addr = match.Addr(v6)
	}
	return a, nil
}
