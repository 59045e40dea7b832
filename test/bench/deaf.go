package main

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// deafRules drop what a VM hears that is for all, before its network stack looks at it.
const deafRules = `table netdev deaf {
	chain ingress {
		type filter hook ingress device eth0 priority 0
		meta pkttype { broadcast, multicast } drop
	}
}
`

// deafen takes the bystanders' work out of what is measured: a broadcast costs each VM that hears it more than it costs the network, and in a cloud VMs
// have CPUs of their own for that, where here all share two with the network. The victims hear everything.
func deafen(a arena, rogues int) error {
	for _, v := range attacks.VMs(rogues) {
		if v.Name == "alice" || v.Name == "bob" {
			continue
		}
		s, err := a.space(v.Name)
		if err != nil {
			return err
		}
		if err := filter(s, deafRules); err != nil {
			return fmt.Errorf("VM %s: %w", v.Name, err)
		}
	}
	return nil
}

// filter gives a namespace rules of nftables.
func filter(s ns.Space, rules string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	return s.Do(func() error {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	})
}
