package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
)

// losses are packets of the VMs between which the established flows are, that something has counted as dropped: a port, for a reason,
// or the VM itself, because nobody read its socket.
type losses map[string]uint64

// look reads them. What an agent has counted begins anew with the next one.
func (x *runner) look(ctx context.Context) (losses, error) {
	ports, err := debug.NewClient(x.h.Socket()).Ports(ctx)
	if err != nil {
		return nil, err
	}
	l := losses{}
	for i := range ports {
		if x.pids[ports[i].Name] == 0 {
			continue
		}
		for reason, n := range ports[i].Drops {
			l[ports[i].Name+": "+reason] = n
		}
	}
	for name, pid := range x.pids {
		n, err := socketDrops(pid)
		if err != nil {
			return nil, err
		}
		l[name+": not read from its socket"] = n
	}
	return l, nil
}

// since says what has come on top of earlier losses; empty: nothing.
func (l losses) since(before losses) string {
	var list []string
	for _, what := range slices.Sorted(maps.Keys(l)) {
		if n := l[what]; n > before[what] {
			list = append(list, fmt.Sprintf("%s %d", what, n-before[what]))
		}
	}
	return strings.Join(list, ", ")
}

// socketDrops reads how many datagrams the network namespace of a process had no room for in the sockets that they were for.
func socketDrops(pid int) (n uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/snmp", pid))
	if err != nil {
		return 0, err
	}
	var names, values []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "Udp:" {
			names, values = values, f
		}
	}
	i := slices.Index(names, "RcvbufErrors")
	if i < 0 || i >= len(values) {
		return 0, fmt.Errorf("/proc/%d/net/snmp does not say what sockets had no room for", pid)
	}
	_, err = fmt.Sscan(values[i], &n)
	return n, err
}
