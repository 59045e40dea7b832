// Package conntrack is the connections that devices have seen, and how they are translated. A
// connection has two directions: Orig as its first packet came to the device, Reply as
// answers come. Without translation one is the reverse of the other; with it, packets of
// either direction become the reverse of the other one. Each direction belongs to one connection at most, so
// translation is its own inverse, and no two connections share a translated tuple.
package conntrack

import (
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
	OnRemove func(Conn)
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

// timeout is how long a connection lives after its last flow.
func (c *Config) timeout(proto uint8, idle time.Duration, s State) time.Duration {
	if idle > 0 {
		return idle
	}
	answered := s&Replied != 0
	switch proto {
	case 6:
		switch {
		case s.closed():
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

func (s State) closed() bool { return s&Reset != 0 || s&(FinOrig|FinReply) == FinOrig|FinReply }
