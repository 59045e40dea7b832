// Package impair makes the ways between the ports of an Ethernet switch worse than they are: cut, lossy, slow. The switch is a Linux
// bridge in a namespace. nftables (the command nft) cuts and loses frames; the kernel's netem delays them.
package impair

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// ErrNoDelay: the kernel has no netem, which is the module sch_netem.
var ErrNoDelay = errors.New("this kernel cannot delay packets: it has no netem (module sch_netem)")

// Way is what becomes of frames that come in at one port of the switch and go out at another.
type Way struct {
	From, To string // interfaces
	Cut      bool
	Loss     float64 // of frames, 0 to 1. With segmentation offload a frame has up to 64 KB.
	Delay    time.Duration
}

// Set makes the switch in space treat frames as the ways say, all others as usual, and forgets what was set before. After an error it
// has the cuts and losses of before or of now, and part of the delays.
func Set(space ns.Space, ways []Way) error {
	if err := filter(space, rules(ways)); err != nil {
		return err
	}
	h, err := space.Netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.Attrs().MasterIndex == 0 {
			continue
		}
		if err := delay(h, link, delays(ways, link.Attrs().Name)); err != nil {
			return fmt.Errorf("interface %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

// delays are the ways with a delay to a port. Their places in the list are their classes there.
func delays(ways []Way, port string) (list []Way) {
	for _, w := range ways {
		if w.To == port && w.Delay > 0 {
			list = append(list, w)
		}
	}
	return list
}

// rules is the table for nft, in place of the one of before. What is to be delayed gets the class as its priority, which is
// where htb looks first.
func rules(ways []Way) string {
	var b strings.Builder
	b.WriteString("table bridge faults\ndelete table bridge faults\ntable bridge faults {\n\tchain forward {\n\t\ttype filter hook forward priority filter;\n")
	for _, w := range ways {
		match := fmt.Sprintf("\t\tiifname %q oifname %q", w.From, w.To)
		if w.Cut || w.Loss == 1 { // nft refuses a comparison that is always true
			fmt.Fprintf(&b, "%s counter drop\n", match)
			continue
		}
		if w.Loss > 0 {
			fmt.Fprintf(&b, "%s numgen random mod %d < %d counter drop\n", match, parts, min(int(math.Round(w.Loss*parts)), parts-1))
		}
		if w.Delay > 0 {
			fmt.Fprintf(&b, "%s meta priority set 1:%x\n", match, class(slices.Index(delays(ways, w.To), w)))
		}
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

// parts is how finely losses can be set.
const parts = 100_000

// LeastLoss is the least that can be set.
const LeastLoss = 1.0 / parts

// class is the minor number of the i-th class of a port.
func class(i int) uint16 { return uint16(i) + 1 }

func filter(space ns.Space, rules string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := space.Start(cmd)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install nftables", err)
	}
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// delay gives a port a class with a netem for each way, in place of what it had; no ways leave it as it was made.
func delay(h *netlink.Handle, port netlink.Link, ways []Way) error {
	at := func(parent, handle uint32) netlink.QdiscAttrs {
		return netlink.QdiscAttrs{LinkIndex: port.Attrs().Index, Parent: parent, Handle: handle}
	}
	root := netlink.NewHtb(at(netlink.HANDLE_ROOT, netlink.MakeHandle(1, 0)))
	there, err := h.QdiscList(port)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(there, func(q netlink.Qdisc) bool { return q.Type() == root.Type() && q.Attrs().Handle == root.Handle }) {
		if err := h.QdiscDel(root); err != nil {
			return fmt.Errorf("htb: %w", err)
		}
	}
	if len(ways) == 0 {
		return nil
	}
	if err := h.QdiscAdd(root); err != nil {
		return fmt.Errorf("htb: %w", err)
	}
	for i, w := range ways {
		id := netlink.MakeHandle(1, class(i))
		// As fast as 32 bits can say: the class is there for its queue alone.
		const rate, burst = 30e9, 1 << 20 // bits per second, bytes
		c := netlink.NewHtbClass(netlink.ClassAttrs{LinkIndex: port.Attrs().Index, Parent: root.Handle, Handle: id},
			netlink.HtbClassAttrs{Rate: rate, Ceil: rate, Buffer: burst, Cbuffer: burst, Quantum: 200_000})
		if err := h.ClassAdd(c); err != nil {
			return fmt.Errorf("htb: %w", err)
		}
		err := h.QdiscAdd(netlink.NewNetem(at(id, netlink.MakeHandle(class(i)+1, 0)),
			netlink.NetemQdiscAttrs{Latency: uint32(w.Delay.Microseconds()), Limit: 100_000}))
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNoDelay
		}
		if err != nil {
			return err
		}
	}
	return nil
}
