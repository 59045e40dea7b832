package pathtest

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/viaduct-net/viaduct/internal/base/packet"
)

// flags reads the TCP flags by their first letters.
func (w words) flags() (f uint8) {
	s, ok := w.get["flags"]
	if !ok {
		return packet.FlagSYN
	}
	for _, c := range s {
		f |= 1 << strings.IndexRune("FSRPAU", c)
	}
	return f
}

// fragment makes an IP packet a fragment, and gives it an extension header, if the words say so.
func (w words) fragment(frame []byte) []byte {
	v, _ := packet.Parse(frame, 1)
	l3 := v.L3
	extend := func(header ...byte) { // after the fixed header of IPv6
		header[0], frame[l3+6] = frame[l3+6], header[0]
		frame = slices.Insert(frame, l3+packet.IPv6Len, header...)
		binary.BigEndian.PutUint16(frame[l3+4:], binary.BigEndian.Uint16(frame[l3+4:])+uint16(len(header)))
	}
	field := map[string]uint16{"": 0, "first": 0x2000, "later": 0x0010}[w.get["frag"]] // of IPv4: more, or an offset of 128
	id := w.number("datagram", 1)
	switch {
	case field != 0 && v.Is4():
		binary.BigEndian.PutUint16(frame[l3+4:], uint16(id))
		binary.BigEndian.PutUint16(frame[l3+6:], field)
		binary.BigEndian.PutUint16(frame[l3+10:], 0)
		binary.BigEndian.PutUint16(frame[l3+10:], packet.Checksum(frame[l3:l3+packet.IPv4Len]))
	case field == 0x2000:
		extend(44, 0, 0, 1, 0, 0, byte(id>>8), byte(id))
	case field != 0:
		extend(44, 0, 0, 128, 0, 0, byte(id>>8), byte(id))
	}
	if _, ok := w.get["ext"]; ok {
		extend(0, 0, 1, 4, 0, 0, 0, 0) // PadN
	}
	return frame
}

// Fragments cuts the IP packet of a frame into fragments of at most size bytes of payload, a multiple of 8 (RFC 791 section
// 3.2, RFC 8200 section 4.5).
func Fragments(frame []byte, size int, id uint32) (out [][]byte) {
	v, _ := packet.Parse(frame, 1)
	head := packet.IPv4Len
	if v.Is6() {
		head = packet.IPv6Len
	}
	payload := frame[v.L3+head : v.L3+v.L3Len]
	for at := 0; at < len(payload); at += size {
		end, more := min(at+size, len(payload)), uint16(0)
		if end < len(payload) {
			more = 1
		}
		f := slices.Clone(frame[:v.L3+head])
		ip := f[v.L3:]
		if v.Is4() {
			binary.BigEndian.PutUint16(ip[2:], uint16(head+end-at))
			binary.BigEndian.PutUint16(ip[4:], uint16(id))
			binary.BigEndian.PutUint16(ip[6:], uint16(at/8)|more<<13)
			binary.BigEndian.PutUint16(ip[10:], 0)
			binary.BigEndian.PutUint16(ip[10:], packet.Checksum(ip))
		} else {
			binary.BigEndian.PutUint16(ip[4:], uint16(8+end-at))
			next := ip[6]
			ip[6] = 44
			f = append(f, next, 0)
			f = binary.BigEndian.AppendUint16(f, uint16(at)|more)
			f = binary.BigEndian.AppendUint32(f, id)
		}
		out = append(out, append(f, payload[at:end]...))
	}
	return out
}

// Reassemble is the inverse of Fragments, in whatever order they come; nil when something is missing.
func Reassemble(fragments [][]byte) []byte {
	type piece struct {
		at   int
		data []byte
	}
	var pieces []piece
	var frame []byte
	var v packet.View
	for _, f := range fragments {
		v, _ = packet.Parse(f, 1)
		head, at := packet.IPv4Len, 0
		if v.Is4() {
			at = int(binary.BigEndian.Uint16(f[v.L3+6:])&0x1fff) * 8
		} else {
			head = packet.IPv6Len + 8
			at = int(binary.BigEndian.Uint16(f[v.L3+packet.IPv6Len+2:]) &^ 7)
		}
		if at == 0 {
			frame = slices.Clone(f[:v.L3+head])
		}
		pieces = append(pieces, piece{at, f[v.L3+head : v.L3+v.L3Len]})
	}
	slices.SortFunc(pieces, func(a, b piece) int { return a.at - b.at })
	if frame == nil {
		return nil
	}
	if v.Is6() {
		next := frame[v.L3+packet.IPv6Len]
		frame = frame[:v.L3+packet.IPv6Len]
		frame[v.L3+6] = next
	}
	total := 0
	for _, p := range pieces {
		if p.at != total {
			return nil
		}
		frame, total = append(frame, p.data...), total+len(p.data)
	}
	ip := frame[v.L3:]
	if v.Is4() {
		binary.BigEndian.PutUint16(ip[2:], uint16(packet.IPv4Len+total))
		binary.BigEndian.PutUint32(ip[4:], 0)
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], packet.Checksum(ip[:packet.IPv4Len]))
	} else {
		binary.BigEndian.PutUint16(ip[4:], uint16(total))
	}
	return frame
}
