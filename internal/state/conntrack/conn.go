// Package conntrack is the connections that devices have seen, and how they are translated. A
// connection has two directions: Orig as its first packet came to the device, Reply as
// answers come. Without translation one is the reverse of the other; with it, packets of
// either direction become the reverse of the other one. Each direction belongs to one connection at most, so
// translation is its own inverse, and no two connections share a translated tuple.
package conntrack

import (
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
)

// Config of a Table. Timeouts run from the last flow of the connection: while one is
// installed the connection lives.
type Config struct {
	MaxPerOwner int           // connections that one owner, a port or a device, may have
	TCPNew      time.Duration // nobody has answered yet
	TCP         time.Duration // RFC 5382 REQ-5: at least 2 h 4 min
	TCPClosed   time.Duration // both sides have sent FIN, or one RST
	UDPNew      time.Duration // nobody has answered yet
	UDP         time.Duration // RFC 4787 REQ-5: at least 2 min
	Other       time.Duration // ICMP: RFC 5508 REQ-1, at least 60 s

	// OnRemove, when set, is called once for each connection that is gone.
	OnRemove func(*Conn)
}

// DefaultConfig is 32,768 an owner; 2 min, 2 h 4 min, 10 s; 30 s, 3 min; 60 s.
func DefaultConfig() Config {
	return Config{
		MaxPerOwner: 32768,
		TCPNew:      2 * time.Minute, TCP: 124 * time.Minute, TCPClosed: 10 * time.Second,
		UDPNew: 30 * time.Second, UDP: 3 * time.Minute,
		Other: 60 * time.Second,
	}
}

// Conn is a connection that is to be added.
type Conn struct {
	Kind        tag.Kind // tag.Connection, tag.Translation, tag.Destination or tag.Affinity: worlds that do not see each other
	Device      uuid.UUID
	Orig, Reply match.Tuple
	Owner       uuid.UUID     // whose bound it counts against
	Idle        time.Duration // how long it lives after its last flow; 0: as its protocol says
}

// Found is what a lookup tells.
type Found struct {
	Other   match.Tuple // the other direction: packets become its reverse
	Reply   bool        // the tuple asked for is the connection's Reply
	Replied bool        // an answer has been seen
}

// State is what has been seen of a connection.
type State uint8

// What a State has. Hosts tell each other, so these do not change.
const (
	Replied  State = 1 << iota // an answer
	FinOrig                    // FIN in the direction of the first packet
	FinReply                   // FIN in the other one
	Reset                      // RST
	seen     = Replied | FinOrig | FinReply | Reset
)

// The low bits of entry.state are a State. The connection's references are counted above them.
const (
	replied         = uint32(Replied)
	finOrig         = uint32(FinOrig)
	finReply        = uint32(FinReply)
	reset           = uint32(Reset)
	dead     uint32 = 1 << 4 // removed: nobody can take a reference any more
	oneRef   uint32 = 1 << 5
)

// entry is a Conn in the table. Only what is atomic changes.
type entry struct {
	Conn
	state atomic.Uint32
	used  atomic.Int64
	links [2]link // by which it is found first: in the direction of Orig, and of Reply
}

func (e *entry) direction(reply bool) *match.Tuple {
	if !reply {
		return &e.Orig
	}
	return &e.Reply
}

func (e *entry) closed() bool {
	s := e.state.Load()
	return s&reset != 0 || s&(finOrig|finReply) == finOrig|finReply
}

// ref takes a reference; false when the connection is being removed.
func (e *entry) ref() bool {
	for {
		s := e.state.Load()
		if s&dead != 0 {
			return false
		}
		if e.state.CompareAndSwap(s, s+oneRef) {
			return true
		}
	}
}

// unref gives one back, if there is one.
func (e *entry) unref() {
	for {
		s := e.state.Load()
		if s < oneRef || e.state.CompareAndSwap(s, s-oneRef) {
			return
		}
	}
}

// kill marks the connection as removed: held or not, or only when nobody holds it.
func (e *entry) kill(evenHeld bool) bool {
	for {
		s := e.state.Load()
		if s&dead != 0 || s >= oneRef && !evenHeld {
			return false
		}
		if e.state.CompareAndSwap(s, s|dead) {
			return true
		}
	}
}

// timeout is how long the connection lives after its last flow.
func (c *Config) timeout(e *entry) time.Duration {
	if e.Idle > 0 {
		return e.Idle
	}
	answered := e.state.Load()&replied != 0
	switch e.Orig.Proto {
	case 6:
		switch {
		case e.closed():
			return c.TCPClosed
		case answered:
			return c.TCP
		}
		return c.TCPNew
	case 17, 132:
		if answered {
			return c.UDP
		}
		return c.UDPNew
	}
	return c.Other
}
