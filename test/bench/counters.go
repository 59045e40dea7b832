package main

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// counters reads those of a VM's interface.
func counters(s ns.Space) (received, sent uint64, err error) {
	h, err := s.Netlink()
	if err != nil {
		return 0, 0, err
	}
	defer h.Close()
	return read(h)
}

func read(h *netlink.Handle) (received, sent uint64, err error) {
	link, err := h.LinkByName("eth0")
	if err != nil {
		return 0, 0, err
	}
	st := link.Attrs().Statistics
	if st == nil {
		return 0, 0, fmt.Errorf("eth0 has no statistics")
	}
	return st.RxPackets, st.TxPackets, nil
}

// awaitTraffic returns when a VM has sent n frames more.
func awaitTraffic(ctx context.Context, s ns.Space, n uint64) error {
	h, err := s.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	_, before, err := read(h)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, now, err := read(h)
		if err != nil {
			return err
		}
		if now >= before+n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the generator does not send: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
