// Package prep is stage 4 of the packet's path: it holds what cannot be processed now.
//
// Held are duplicates of a packet that has not been decided yet; they get the treatment of
// the first one when it ends. Parked are packets whose simulation answered "not yet"; they restart
// from the top, in their order, when what they wait for is there, or end as
// drop.ParkTimeout. Both are bounded per port, so that no tenant can make the
// agent keep packets for it without end; neither holds a token.
package prep
