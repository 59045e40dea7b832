package worker

import "time"

// Replies bounds how often bridges and routers speak because of one port: answers to ARP, DHCP and echo, ICMP errors
// (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4(f)). Each worker counts for itself. Zero values mean the defaults.
type Replies struct {
	PerSecond int // 1000
	Burst     int // 1000
}

// replies holds, for each datapath port that was answered, when its allowance is whole again: the generic cell rate algorithm
// (ITU-T I.371), one number a port.
type replies struct {
	interval, burst int64 // ns
	whole           map[uint32]int64
}

func newReplies(cfg Replies) replies {
	r := replies{whole: make(map[uint32]int64)}
	r.configure(cfg)
	return r
}

func (r *replies) configure(cfg Replies) {
	if cfg.PerSecond <= 0 {
		cfg.PerSecond = 1000
	}
	if cfg.Burst <= 0 {
		cfg.Burst = 1000
	}
	r.interval = int64(time.Second) / int64(cfg.PerSecond)
	r.burst = r.interval * int64(cfg.Burst)
}

// take reports whether a port may be answered once more.
func (r *replies) take(no uint32, now int64) bool {
	at := max(r.whole[no], now) + r.interval
	if at-now > r.burst {
		return false
	}
	r.whole[no] = at
	return true
}

func (r *replies) forget(no uint32) { delete(r.whole, no) }
