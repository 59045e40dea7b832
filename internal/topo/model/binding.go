package model

import "github.com/google/uuid"

// Binding attaches a port to a host's interface. Its ID is the port's. Of a port that moves, two hosts take part: the one that has
// it lets go, hands over what it knows of the port's connections, and says so (Released); only then the other one begins.
type Binding struct {
	Meta
	PortID    uuid.UUID
	HostID    uuid.UUID
	Interface string
	// FromID is the host that has the port still; Nil: nobody has to let go. The store sets it when a binding that is there gets
	// another host, and keeps it until the binding is replaced by what Released returns.
	FromID uuid.UUID
}

// Owner is the host that has the port: it alone carries the port's packets.
func (b *Binding) Owner() uuid.UUID {
	if b.FromID != uuid.Nil {
		return b.FromID
	}
	return b.HostID
}

// Released is the binding without anybody who has to let go, to be put in its place at its revision.
func (b *Binding) Released() *Binding {
	r := *b
	r.FromID = r.HostID
	return &r
}

// inherit chooses FromID, whatever it says; that it is HostID says that nobody has to let go.
func (b *Binding) inherit(stored Object) {
	released := b.FromID == b.HostID
	b.FromID = uuid.Nil
	if was, ok := stored.(*Binding); ok && !released && was.Owner() != b.HostID {
		b.FromID = was.Owner()
	}
}
