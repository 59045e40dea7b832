package ovs

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

var ne = binary.NativeEndian

const (
	headerLen = unix.NLMSG_HDRLEN + unix.GENL_HDRLEN + 4 // with struct ovs_header
	attrLen   = unix.NLA_HDRLEN
	maxAttr   = 1<<16 - 1
)

// message builds netlink messages one after the other. Its memory is reused.
type message struct{ b []byte }

// begin starts a message to the datapath with that ifindex and returns where, for end.
func (m *message) begin(family uint16, cmd uint8, flags uint16, seq, dp uint32) int {
	at := len(m.b)
	var h [headerLen]byte
	ne.PutUint16(h[4:], family)
	ne.PutUint16(h[6:], unix.NLM_F_REQUEST|flags)
	ne.PutUint32(h[8:], seq)
	h[16], h[17] = cmd, 2 // version; only ovs_datapath looks at it
	ne.PutUint32(h[20:], dp)
	m.b = append(m.b, h[:]...)
	return at
}

func (m *message) end(at int) { ne.PutUint32(m.b[at:], uint32(len(m.b)-at)) }

func (m *message) attr(typ uint16, data []byte) {
	at := m.nest(typ)
	m.b = append(m.b, data...)
	m.close(at)
}

func (m *message) u32(typ uint16, v uint32) {
	at := m.nest(typ)
	m.b = ne.AppendUint32(m.b, v)
	m.close(at)
}

func (m *message) be16(typ, v uint16) {
	at := m.nest(typ)
	m.b = binary.BigEndian.AppendUint16(m.b, v)
	m.close(at)
}

func (m *message) text(typ uint16, s string) {
	at := m.nest(typ)
	m.b = append(append(m.b, s...), 0)
	m.close(at)
}

// nest opens an attribute that others follow in; close ends it.
func (m *message) nest(typ uint16) int {
	at := len(m.b)
	m.b = ne.AppendUint16(m.b, 0)
	m.b = ne.AppendUint16(m.b, typ)
	return at
}

// close writes the length and pads to 4 bytes. The caller keeps it below 64 KB.
func (m *message) close(at int) {
	ne.PutUint16(m.b[at:], uint16(len(m.b)-at))
	for len(m.b)%unix.NLA_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
}

// attrs walks over attributes:
//
//	for as := (attrs{b: b}); as.next(); { as.typ, as.data }
//
// err says afterwards whether they were well formed.
type attrs struct {
	b    []byte
	typ  uint16
	data []byte
	err  error
}

func (a *attrs) next() bool {
	if len(a.b) == 0 {
		return false
	}
	if len(a.b) < attrLen {
		a.err = fmt.Errorf("netlink: %d bytes after the last attribute", len(a.b))
		return false
	}
	n := int(ne.Uint16(a.b))
	if n < attrLen || n > len(a.b) {
		a.err = fmt.Errorf("netlink: attribute of %d bytes, %d are left", n, len(a.b))
		return false
	}
	a.typ = ne.Uint16(a.b[2:]) & 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	a.data = a.b[attrLen:n:n]
	a.b = a.b[min((n+3)&^3, len(a.b)):]
	return true
}

// find returns the data of the first attribute of a type, nil when there is none.
func find(b []byte, typ uint16) []byte {
	for as := (attrs{b: b}); as.next(); {
		if as.typ == typ {
			return as.data
		}
	}
	return nil
}

// findU32 is find for a number; ok is false also when it is short.
func findU32(b []byte, typ uint16) (v uint32, ok bool) {
	if d := find(b, typ); len(d) >= 4 {
		return ne.Uint32(d), true
	}
	return 0, false
}

// reply is a message from the kernel.
type reply struct {
	typ, flags uint16
	seq        uint32
	body       []byte // after the netlink header
}

// payload is what follows the generic netlink and OVS headers: cmd, ifindex of the datapath, attributes.
func (r *reply) payload() (cmd uint8, dp uint32, as []byte, err error) {
	const n = headerLen - unix.NLMSG_HDRLEN
	if len(r.body) < n {
		return 0, 0, nil, fmt.Errorf("netlink: message body of %d bytes", len(r.body))
	}
	return r.body[0], ne.Uint32(r.body[unix.GENL_HDRLEN:]), r.body[n:], nil
}

// errno is what an error message says: nil for an acknowledgement.
func (r *reply) errno() error {
	if len(r.body) < 4 {
		return fmt.Errorf("netlink: error message of %d bytes", len(r.body))
	}
	if code := -int32(ne.Uint32(r.body)); code != 0 {
		return unix.Errno(code)
	}
	return nil
}

// split takes the first message off b.
func split(b []byte) (r reply, rest []byte, err error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return r, nil, fmt.Errorf("netlink: %d bytes for a message", len(b))
	}
	n := ne.Uint32(b)
	if n < unix.NLMSG_HDRLEN || uint64(n) > uint64(len(b)) {
		return r, nil, fmt.Errorf("netlink: message of %d bytes, %d were read", n, len(b))
	}
	r = reply{typ: ne.Uint16(b[4:]), flags: ne.Uint16(b[6:]), seq: ne.Uint32(b[8:]), body: b[unix.NLMSG_HDRLEN:n]}
	return r, b[min(int(n+3)&^3, len(b)):], nil
}
