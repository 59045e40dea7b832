package flow

// stamp is a time in hundredths of a second, of which only the last 32 bits are kept: times up to eight months away from now are
// told apart, and nothing in the table is that old without having been looked at.
type stamp uint32

const stampUnit = int64(10e6) // ns

// stampOf rounds up, so that nothing expires early.
func stampOf(ns int64) stamp { return stamp((ns + stampUnit - 1) / stampUnit) }

// time is the whole of a stamp, in ns.
func (s stamp) time(now int64) int64 {
	at := now / stampUnit
	return (at - int64(int32(uint32(at)-uint32(s)))) * stampUnit
}

// later is the later of two stamps.
func later(a, b stamp) stamp {
	if int32(a-b) < 0 {
		return b
	}
	return a
}
