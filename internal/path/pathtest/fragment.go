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
	switch {
	case field != 0 && v.Is4():
		binary.BigEndian.PutUint16(frame[l3+6:], field)
		binary.BigEndian.PutUint16(frame[l3+10:], 0)
		binary.BigEndian.PutUint16(frame[l3+10:], packet.Checksum(frame[l3:l3+packet.IPv4Len]))
	case field == 0x2000:
		extend(44, 0, 0, 1, 0, 0, 0, 1)
	case field != 0:
		extend(44, 0, 0, 128, 0, 0, 0, 1)
	}
	if _, ok := w.get["ext"]; ok {
		extend(0, 0, 1, 4, 0, 0, 0, 0) // PadN
	}
	return frame
}
