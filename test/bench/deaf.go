package main

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/viaduct-net/viaduct/internal/lab/attacks"
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
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(deafRules)
		err = s.Do(func() error {
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("nft in VM %s: %w: %s", v.Name, err, out)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
