// Package replicate is how hosts tell each other of connections: who decides the first packet of one sends it to
// the host at the other end of the tunnel before the packet itself, so that the answer is known there when it comes. And it is how a host that
// the store has taken for dead, and that may only be cut off from it, hears which ports are not its own any more.
//
// A message is an Ethernet frame in a tunnel with key Key. Its addresses are chosen so that it goes to the worker that the answer
// will go to (match.Steer), and so it cannot be overtaken. Each is acknowledged, and sent again until it is, but for those of ports (Owns).
package replicate

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
)

const (
	// Key is the tunnel's: no port has it.
	Key = 1<<24 - 1
	// EthType of messages: IEEE 802 local experimental 1.
	EthType = 0x88b5

	version   = 2
	ethLen    = 14
	headerLen = ethLen + 28
	connLen   = 8 + 2*16 + 2*36
	ackLen    = 4
	ownedLen  = 16 + 8

	// MaxConns, MaxAcks and MaxOwned are how many a message holds, within 1280 bytes.
	MaxConns = 11
	MaxAcks  = 300
	MaxOwned = 50
)

// Kind is what a message is about.
type Kind uint8

// Kinds.
const (
	Conns Kind = iota + 1 // connections that the sender has
	Acks                  // sequence numbers of messages that the sender has received
	Hello                 // the sender has begun anew and asks for what concerns it
	Owns                  // ports that the sender has taken from a host that the store took for dead; it is not acknowledged
)

// Header begins a message.
type Header struct {
	Kind    Kind
	Host    uuid.UUID // the sender
	Worker  uint16    // of the sender, to which acknowledgements go
	Workers uint16    // that the sender has
	Seq     uint32    // unique among what the worker has sent of late
	Count   uint16
	// Repeated: it was sent before, and nobody has acknowledged it.
	Repeated bool
}

// Conn is a connection on the wire.
type Conn struct {
	conntrack.Conn
	State conntrack.State
	Moved bool // it takes the place of the one that was there, as where a load balancer has given a client another member
}

const (
	repeated = 1 << 7 // in the byte of the kind
	moved    = 1      // in the byte of what else there is to say of a connection
)

// ErrMessage says that a frame is no message, or one of another version.
var ErrMessage = errors.New("not a message about connections")

// Begin appends the beginning of a message, for the worker that sum leads to. Conns, sequence numbers or ports follow.
func Begin(dst []byte, h *Header, sum uint32) []byte {
	to, from := match.Steer(sum)
	dst = append(append(dst, to[:]...), from[:]...)
	dst = binary.BigEndian.AppendUint16(dst, EthType)
	dst = append(dst, version, byte(h.Kind))
	dst = binary.BigEndian.AppendUint16(dst, h.Worker)
	dst = binary.BigEndian.AppendUint16(dst, h.Workers)
	dst = binary.BigEndian.AppendUint32(dst, h.Seq)
	dst = binary.BigEndian.AppendUint16(dst, h.Count)
	return append(dst, h.Host[:]...)
}

// AppendConn adds a connection to a message that was begun; SetCount says how many there are.
func AppendConn(dst []byte, c *Conn) []byte {
	flags := byte(0)
	if c.Moved {
		flags |= moved
	}
	dst = append(dst, byte(c.Kind), c.Orig.Proto, byte(c.State), flags)
	dst = binary.BigEndian.AppendUint32(dst, uint32(c.Idle.Milliseconds()))
	dst = append(append(dst, c.Device[:]...), c.Owner[:]...)
	return appendTuple(appendTuple(dst, &c.Orig), &c.Reply)
}

func appendTuple(dst []byte, t *match.Tuple) []byte {
	dst = append(append(dst, t.Src[:]...), t.Dst[:]...)
	dst = binary.BigEndian.AppendUint16(dst, t.SrcPort)
	return binary.BigEndian.AppendUint16(dst, t.DstPort)
}

// AppendAck adds a sequence number.
func AppendAck(dst []byte, seq uint32) []byte { return binary.BigEndian.AppendUint32(dst, seq) }

// SetCount writes how many connections, sequence numbers or ports the message has.
func SetCount(frame []byte, n int) { binary.BigEndian.PutUint16(frame[ethLen+10:], uint16(n)) }

// SetRepeated marks a message that is sent again.
func SetRepeated(frame []byte) { frame[ethLen+1] |= repeated }

// Parse reads the header and returns what follows it, which is as long as it has to be.
func Parse(frame []byte) (h Header, body []byte, err error) {
	if len(frame) < headerLen || binary.BigEndian.Uint16(frame[12:]) != EthType || frame[ethLen] != version {
		return h, nil, ErrMessage
	}
	b := frame[ethLen:]
	h = Header{Kind: Kind(b[1] &^ repeated), Repeated: b[1]&repeated != 0, Worker: binary.BigEndian.Uint16(b[2:]), Workers: binary.BigEndian.Uint16(b[4:]),
		Seq: binary.BigEndian.Uint32(b[6:]), Count: binary.BigEndian.Uint16(b[10:]), Host: uuid.UUID(b[12:28])}
	body = frame[headerLen:]
	size := 0
	switch h.Kind {
	case Conns:
		size = connLen
	case Acks:
		size = ackLen
	case Hello:
	case Owns:
		size = ownedLen
	default:
		return h, nil, ErrMessage
	}
	if h.Workers == 0 || h.Worker >= h.Workers || len(body) < size*int(h.Count) {
		return h, nil, ErrMessage
	}
	return h, body[:size*int(h.Count)], nil
}

// ConnAt reads the i-th connection of a body; false when it is none that this version knows.
func ConnAt(body []byte, i int) (c Conn, ok bool) {
	b := body[i*connLen : (i+1)*connLen]
	c.Kind, c.State = tag.Kind(b[0]), conntrack.State(b[2])
	c.Moved, c.Idle = b[3]&moved != 0, time.Duration(binary.BigEndian.Uint32(b[4:]))*time.Millisecond
	c.Device, c.Owner = uuid.UUID(b[8:24]), uuid.UUID(b[24:40])
	c.Orig, c.Reply = tuple(b[40:76], b[1]), tuple(b[76:112], b[1])
	return c, c.Kind.IsConnection() || c.Kind == tag.Affinity
}

func tuple(b []byte, proto uint8) match.Tuple {
	return match.Tuple{Src: match.Addr(b[:16]), Dst: match.Addr(b[16:32]), SrcPort: binary.BigEndian.Uint16(b[32:]), DstPort: binary.BigEndian.Uint16(b[34:]), Proto: proto}
}

// ConnLen is the length of a connection as AppendConn writes it.
const ConnLen = connLen

// Owned is a port that the sender has, as of a revision of the store.
type Owned struct {
	Port     uuid.UUID
	Revision int64
}

// AppendOwned adds a port.
func AppendOwned(dst []byte, o Owned) []byte {
	return binary.BigEndian.AppendUint64(append(dst, o.Port[:]...), uint64(o.Revision))
}

// OwnedAt reads the i-th port of a body.
func OwnedAt(body []byte, i int) Owned {
	b := body[i*ownedLen:]
	return Owned{Port: uuid.UUID(b[:16]), Revision: int64(binary.BigEndian.Uint64(b[16:]))}
}

// AckAt reads the i-th sequence number of a body.
func AckAt(body []byte, i int) uint32 { return binary.BigEndian.Uint32(body[i*ackLen:]) }
