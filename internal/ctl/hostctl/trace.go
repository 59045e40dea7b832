package hostctl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/base/trace"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

// ErrUnexpected is returned when --expect does not hold: exit status 1.
var ErrUnexpected = errors.New("not as expected")

func traceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trace --port PORT [--src A] --dst B [--udp S:D | --tcp S:D | --icmp | --arp]",
		Short: "Show what becomes of a packet: every stage, every device, the decision and its flow",
		Long: `Without --live no packet is sent: the agent asks the engine that decides on real packets, and nothing
is learnt, installed or counted. MACs and the source address that are not given are those of the
port's VM; the destination's MAC is the neighbour's on the same bridge, else the gateway's.`,
		Example: `  viaduct trace --port vm1 --dst 10.0.2.10 --udp 4000:53
  viaduct trace --port vm1 --dst 10.0.1.1 --arp
  viaduct trace --port vm1 --pcap odd.pcap -o json
  viaduct trace --port vm1 --dst 10.0.2.10 --tcp 4000:22 --expect allow
  viaduct trace --live 5 --port vm1`,
		Args: cobra.NoArgs,
	}
	socket := socketFlag(c)
	var p packetFlags
	f := c.Flags()
	port := f.String("port", "", "virtual port where the packet enters: name, id or interface")
	form := output.StreamFlag(c, output.Text)
	expect := f.String("expect", "", "allow or drop: exit with status 1 when it is not so")
	pcap := f.String("pcap", "", "trace the frames of this pcap file")
	live := f.Int("live", 0, "show the next so many real packets instead, as they come")
	p.register(f)
	c.MarkFlagsMutuallyExclusive("pcap", "live")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client := debug.NewClient(*socket)
		if *expect != "" && *expect != "allow" && *expect != "drop" {
			return exit.Usagef("--expect %q: want allow or drop", *expect)
		}
		if *live > 0 {
			return watch(c, client, *port, *live, *form)
		}
		if *port == "" {
			return exit.Usagef("--port: say at which virtual port the packet enters (viaduct ports lists them)")
		}
		frames, err := p.frames(c, client, *port, *pcap)
		if err != nil {
			return err
		}
		for i, frame := range frames {
			a, err := client.Trace(c.Context(), debug.TraceRequest{Port: *port, Frame: frame})
			if err != nil {
				return err
			}
			if err := showAnswer(c.OutOrStdout(), a, *form); err != nil {
				return err
			}
			if *expect != "" && a.Allowed != (*expect == "allow") {
				return fmt.Errorf("packet %d: %w: %s, not %s", i+1, ErrUnexpected, a.Result, *expect)
			}
		}
		return nil
	}
	return c
}

// watch shows real packets until there were n of them.
func watch(c *cobra.Command, client *debug.Client, port string, n int, form output.Form) error {
	trees, err := client.Watch(c.Context(), port, n)
	if err != nil {
		return err
	}
	defer trees.Close()
	for {
		t, err := trees.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := show(c.OutOrStdout(), t, form); err != nil {
			return err
		}
	}
}

func show(w io.Writer, t *trace.Node, form output.Form) error {
	if form.Machine() {
		return form.Next(w, t)
	}
	return t.Render(w)
}

func showAnswer(w io.Writer, a debug.TraceAnswer, form output.Form) error {
	if form.Machine() {
		return form.Next(w, a)
	}
	if err := a.Tree.Render(w); err != nil {
		return err
	}
	fmt.Fprintf(w, "\ndecision  %s", a.Result)
	if a.Reason != "" {
		fmt.Fprintf(w, " (%s)", a.Reason)
	}
	fmt.Fprintln(w)
	if a.Flow == nil {
		fmt.Fprintln(w, "flow      none is installed")
	} else {
		fmt.Fprintf(w, "flow      %s\nactions   %s\nmask      %s\n", a.Flow.Key, a.Flow.Actions, a.Flow.Mask)
	}
	if len(a.Tags) > 0 {
		fmt.Fprintf(w, "tags      %s\n", strings.Join(a.Tags, "\n          "))
	}
	return nil
}

// readPcap returns the frames of a file.
func readPcap(name string) (frames [][]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: not a pcap file: %w", name, err)
	}
	for {
		b, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: packet %d: %w", name, len(frames)+1, err)
		}
		frames = append(frames, b)
	}
}
