package plain

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
)

// stateful is a firewall like the one of a cloud's router: what belongs to a connection passes, and so do new ones of known
// protocols.
const stateful = `
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct state invalid drop
		ct state new meta l4proto { tcp, udp, icmp, ipv6-icmp } accept
	}
}
`

// Firewall has the router track connections and filter by them, with nftables (the command nft).
func (n *Network) Firewall() error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(stateful)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := n.router.Start(cmd)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install nftables (make setup)", err)
	}
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// Pair is two namespaces on one cable: as fast as two of them can be. Their names begin with prefix.
func Pair(prefix string, a, b plug.NIC) (n *Network, err error) {
	n = &Network{vms: []ns.Space{ns.Space(prefix + ".a"), ns.Space(prefix + ".b")}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	for _, s := range n.vms {
		if err := s.Create(); err != nil {
			return n, err
		}
		if err := plug.VM(s); err != nil {
			return n, err
		}
	}
	if err := plug.Veth(n.vms[0], a.Name, n.vms[1], b); err != nil {
		return n, err
	}
	return n, plug.Configure(n.vms[0], a)
}
