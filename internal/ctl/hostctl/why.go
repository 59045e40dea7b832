package hostctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/drop"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

func whyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "why PORT",
		Short: "Show what the packets of a port meet, and the reason of every drop",
		Long: `Follows the live traffic of one port: each packet that comes to the agent as it ends, and at the end, or when
interrupted, all packets of the time by what became of them. That sum is made of the datapath's and the agent's
counters, not of what was shown: no packet is missing from it, however fast they come. As JSON or YAML the sum
is the last object.`,
		Example: `  viaduct why vm1
  viaduct why vm1 --for 1m --quiet
  viaduct why tap3 --for 5s -o json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completePorts,
	}
	socket := socketFlag(c)
	form := output.StreamFlag(c, output.Table)
	period := c.Flags().Duration("for", 10*time.Second, "how long; 0: until interrupted")
	quiet := c.Flags().Bool("quiet", false, "the sum alone")
	c.RunE = func(c *cobra.Command, args []string) error {
		ctx := c.Context()
		if *period > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, *period)
			defer cancel()
		}
		w := &why{client: debug.NewClient(*socket), port: args[0], form: *form}
		if !*quiet {
			w.live = c.OutOrStdout()
		}
		s, err := w.watch(ctx)
		if err != nil {
			return err
		}
		if form.Machine() {
			return form.Next(c.OutOrStdout(), s)
		}
		return s.print(c.OutOrStdout())
	}
	return c
}

// why follows a port.
type why struct {
	client *debug.Client
	port   string
	live   io.Writer // nil: packets are not shown one by one
	form   output.Form
}

// patience bounds the last look at the counters, after what was asked for has ended.
const patience = 5 * time.Second

func (w *why) watch(ctx context.Context) (*whySum, error) {
	trees, err := w.client.Watch(ctx, w.port, 0)
	if err != nil {
		return nil, err
	}
	defer trees.Close()
	before, err := w.look(ctx)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	seen := make(map[string]*whyExample)
	var lost uint64
	for {
		t, err := trees.Next()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			break
		}
		if t.What == debug.WhatLost {
			n, _ := strconv.ParseUint(t.Text, 10, 64)
			lost += n
			continue
		}
		o, reason := outcome(t)
		if seen[o+reason] == nil {
			seen[o+reason] = &whyExample{t.Text, t}
		}
		if w.live != nil {
			if err := w.show(o, reason, t.Text); err != nil {
				return nil, err
			}
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	after, err := w.look(last)
	if err != nil {
		return nil, err
	}
	return sumUp(before, after, time.Since(start), seen, lost), nil
}

func (w *why) show(what, reason, packet string) error {
	now := time.Now()
	if w.form.Machine() {
		return w.form.Next(w.live, struct {
			Time    time.Time `json:"time"`
			Outcome string    `json:"outcome"`
			Reason  string    `json:"reason,omitempty"`
			Packet  string    `json:"packet"`
		}{now, what, reason, packet})
	}
	_, err := fmt.Fprintf(w.live, "%s  %-10s %s\n", now.Format("15:04:05.000"), what, strings.TrimSpace(reason+"  "+packet))
	return err
}

func (w *why) look(ctx context.Context) (debug.Port, error) {
	ps, err := w.client.Ports(ctx)
	if err != nil {
		return debug.Port{}, err
	}
	p := findPort(ps, w.port)
	if p.Interface == "" {
		return p, fmt.Errorf("port %q is not on this host: %w", w.port, debug.ErrNotFound)
	}
	return p, nil
}

// outcome tells from its tree how a packet ended; reason is a drop's.
func outcome(t *trace.Node) (what, reason string) {
	what = "forwarded"
	for _, n := range t.Sub { // what devices made of it are trees of their own, further down
		switch {
		case n.What == "drop":
			reason, _, _ = strings.Cut(n.Text, ":")
			return "dropped", reason
		case n.What == "park":
			return "waits", ""
		case n.What == "duplicates" && strings.Contains(n.Text, "held back"):
			return "waits", ""
		case n.What == "result" && strings.HasPrefix(n.Text, "consumed"):
			what = "consumed"
		}
	}
	return what, ""
}

// whyExample is one packet that met an end.
type whyExample struct {
	Packet string      `json:"packet"`
	Tree   *trace.Node `json:"tree"`
}

// whySum is what became of all packets that entered at a port for a time.
type whySum struct {
	Port    string        `json:"port"`
	Took    time.Duration `json:"took_ns"`
	Entered uint64        `json:"entered"`
	Lines   []whyLine     `json:"lines"` // they add up to Entered
	Unshown uint64        `json:"unshown,omitempty"`
	// Off is how far the lines miss Entered: packets that were on their way while the counters were read.
	Off int64 `json:"off"`
}

// whyLine is one end that packets met.
type whyLine struct {
	Stage   string      `json:"stage"`
	Outcome string      `json:"outcome"`
	Reason  string      `json:"reason,omitempty"`
	Meaning string      `json:"meaning"`
	Packets int64       `json:"packets"`
	Example *whyExample `json:"example,omitempty"`
}

// sumUp makes of two looks at a port's counters what happened in between.
func sumUp(before, after debug.Port, took time.Duration, seen map[string]*whyExample, lost uint64) *whySum {
	s := &whySum{Port: after.Name, Took: took, Entered: after.RxPackets - before.RxPackets, Unshown: lost}
	drops := make(map[string]uint64, len(after.Drops))
	for r, n := range after.Drops {
		if d := n - before.Drops[r]; d > 0 {
			drops[r] = d
		}
	}
	admitted := int64(after.Admitted - before.Admitted)
	kernel, agent := int64(0), int64(0)
	for name, n := range drops {
		r, _ := drop.Parse(name)
		s.Lines = append(s.Lines, whyLine{r.Stage(), "dropped", name, r.Meaning(), int64(n), seen["dropped"+name]})
		if int(r) < drop.KernelReasons {
			kernel += int64(n)
		} else {
			agent += int64(n)
		}
	}
	add := func(stage, outcome, meaning string, n int64, e *whyExample) {
		if n != 0 {
			s.Lines = append(s.Lines, whyLine{stage, outcome, "", meaning, n, e})
		}
	}
	executed, consumed := int64(after.Executed-before.Executed), int64(after.Consumed-before.Consumed)
	waiting, onWay := after.Waiting-before.Waiting, after.InFlight-before.InFlight
	add("worker", "forwarded", "decided by the agent, and sent on", executed, seen["forwarded"])
	add("sim", "consumed", "kept by a device: ARP, DHCP, what is for a router itself", consumed, seen["consumed"])
	add("prep", "waits", "for a neighbour's answer, or for the same packet to be decided; less those that waited before", waiting, seen["waits"])
	add("upcall", "in flight", "on the way to the agent; less those that were before", onWay, nil)
	add("datapath", "forwarded", "by flows of the kernel, which the agent does not see", max(int64(s.Entered)-admitted-kernel, 0), nil)
	for _, l := range s.Lines {
		s.Off += l.Packets
	}
	s.Off -= int64(s.Entered)
	slices.SortFunc(s.Lines, func(x, y whyLine) int {
		if (x.Outcome == "dropped") != (y.Outcome == "dropped") {
			if x.Outcome == "dropped" {
				return -1
			}
			return 1
		}
		return int(y.Packets - x.Packets)
	})
	return s
}

func (s *whySum) print(w io.Writer) error {
	fmt.Fprintf(w, "\n%d packets entered at %s in %s\n", s.Entered, s.Port, s.Took.Round(time.Millisecond))
	t := newTable(w, "PACKETS", "OUTCOME", "STAGE", "REASON", "MEANING")
	for _, l := range s.Lines {
		t.AppendRow([]any{l.Packets, l.Outcome, l.Stage, l.Reason, l.Meaning})
	}
	t.Render()
	if s.Off != 0 {
		fmt.Fprintf(w, "%+d packets: they were on their way while the counters were read\n", s.Off)
	}
	if s.Unshown > 0 {
		fmt.Fprintf(w, "%d packets are counted here but were not shown one by one: they came too fast\n", s.Unshown)
	}
	for _, l := range s.Lines {
		if l.Outcome == "dropped" && l.Example != nil {
			fmt.Fprintf(w, "\nan example of %s:\n", l.Reason)
			if err := l.Example.Tree.Render(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// MarshalJSON keeps the sum whole: no lines are an empty list.
func (s *whySum) MarshalJSON() ([]byte, error) {
	type plain whySum
	p := plain(*s)
	if p.Lines == nil {
		p.Lines = []whyLine{}
	}
	return json.Marshal(p)
}

func completePorts(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	socket, _ := c.Flags().GetString("socket")
	ps, err := debug.NewClient(socket).Ports(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, p := range ps {
		names = append(names, p.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
