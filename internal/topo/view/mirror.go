package view

import "github.com/google/uuid"

// MirrorPoint is a set of places on a packet's way where it is copied.
type MirrorPoint uint8

// Mirror points, as the port or device sees them: before its filters and after them, on the way in and out.
const (
	InBeforeFilters MirrorPoint = 1 << iota
	InAfterFilters
	OutBeforeFilters
	OutAfterFilters
)

// Mirror copies what passes a port, bridge or router to another port.
type Mirror struct {
	ID    uuid.UUID
	Name  string
	At    MirrorPoint
	Match Condition
	To    uuid.UUID
}

// Rate is a token bucket; the zero Rate is no limit.
type Rate struct {
	BitsPerSecond uint64 // of Ethernet frames
	BurstBits     uint64
}
