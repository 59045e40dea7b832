package packet

import (
	"encoding/binary"
	"hash/crc32"
)

// SCTP's checksum is CRC32c over the packet with the field zeroed, stored least
// significant byte first (RFC 9260 appendix A). It covers no addresses.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sctpCRC(l4 []byte) uint32 {
	var zero [4]byte
	c := crc32.Update(0, castagnoli, l4[:8])
	c = crc32.Update(c, castagnoli, zero[:])
	return crc32.Update(c, castagnoli, l4[SCTPLen:])
}

func sctpState(l4 []byte) ChecksumStatus {
	switch binary.LittleEndian.Uint32(l4[8:]) {
	case sctpCRC(l4):
		return ChecksumValid
	case 0:
		return ChecksumPartial
	}
	return ChecksumWrong
}

func fillSCTP(l4 []byte) { binary.LittleEndian.PutUint32(l4[8:], sctpCRC(l4)) }
