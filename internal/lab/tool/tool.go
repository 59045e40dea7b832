// Package tool is the command line of the laboratory's generators and probes
// (`viaduct lab tool ...`), which run inside a VM's namespace and print JSON lines,
// and the means to run them there.
package tool

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/plug"
	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// Ready is the line that a responder prints as soon as it listens, and a burner as soon as it burns.
type Ready struct {
	Listening string `json:"listening"`
}

// Command is `viaduct lab tool`.
func Command() *cobra.Command {
	c := &cobra.Command{Use: "tool", Short: "Traffic generators and probes; they print JSON lines and stop by themselves", Hidden: true}
	c.AddCommand(flood(), probe(), echo(), stream(), tcp(), tap(), burn())
	return c
}

func flood() *cobra.Command {
	var (
		f           traffic.Flood
		target, mac string
	)
	c := &cobra.Command{Use: "flood --target ADDRESS|PREFIX", Short: "Send frames each of which is a new flow", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := interruptible(c)
			defer cancel()
			var err error
			if f.Target, err = parseTarget(target); err != nil {
				return fmt.Errorf("--target: %w", err)
			}
			if mac != "" {
				if f.DstMAC, err = net.ParseMAC(mac); err != nil {
					return fmt.Errorf("--mac: %w", err)
				}
			}
			if err := f.Resolve(ctx); err != nil {
				return err
			}
			res, err := f.Run(ctx)
			return report(c.OutOrStdout(), res, err)
		}}
	fl := c.Flags()
	fl.StringVar(&f.Interface, "interface", "eth0", "interface to send on")
	fl.StringVar(&target, "target", "", "address, or prefix of the destinations")
	fl.StringVar(&mac, "mac", "", "destination MAC address (default: the next hop's, resolved)")
	fl.TextVar(&f.Source, "source", netip.Addr{}, "source address (default: the one of the route)")
	fl.StringVar((*string)(&f.Mode), "mode", string(traffic.ModePorts), fmt.Sprintf("what differs: one of %v", traffic.Modes()))
	fl.Uint64Var(&f.Count, "count", 1e9, "frames at most")
	fl.DurationVar(&f.Duration, "duration", 10*time.Second, "time at most")
	fl.IntVar(&f.Rate, "rate", 0, "frames per second (0: as fast as possible)")
	fl.IntVar(&f.Threads, "threads", 1, "sending threads")
	fl.Uint32Var(&f.First, "first", 0, "number of the first flow")
	fl.IntVar(&f.Nice, "nice", 0, "the sender's niceness")
	return c
}

func probe() *cobra.Command {
	var p traffic.Probe
	c := &cobra.Command{Use: "probe ADDRESS:PORT", Short: "Open a new flow at every tick and measure its first round trip", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			ctx, cancel := interruptible(c)
			defer cancel()
			if p.Target, err = netip.ParseAddrPort(args[0]); err != nil {
				return err
			}
			enc := json.NewEncoder(c.OutOrStdout())
			p.Live = func(r traffic.ProbeResult) { _ = enc.Encode(r) } // a reader that left ends us by SIGPIPE
			res, err := p.Run(ctx)
			return report(c.OutOrStdout(), res, err)
		}}
	fl := c.Flags()
	fl.DurationVar(&p.Interval, "interval", 5*time.Millisecond, "between flows")
	fl.DurationVar(&p.Timeout, "timeout", time.Second, "after which a flow is lost")
	fl.DurationVar(&p.Duration, "duration", 10*time.Second, "time of opening flows")
	fl.BoolVar(&p.Again, "again", false, "send a second packet on each flow, and measure how long both take one way")
	fl.DurationVar(&p.Window, "window", 0, "print a summary this often; the last line is the whole")
	return c
}

func echo() *cobra.Command {
	addr := netip.AddrPortFrom(netip.IPv6Unspecified(), traffic.EchoPort)
	var d time.Duration
	c := &cobra.Command{Use: "echo", Short: "Answer UDP datagrams", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := interruptible(c)
			defer cancel()
			res, err := traffic.Echo(ctx, addr, d, listening(c, &addr))
			return report(c.OutOrStdout(), res, err)
		}}
	c.Flags().TextVar(&addr, "listen", addr, "address and port")
	c.Flags().DurationVar(&d, "duration", 10*time.Minute, "time at most")
	return c
}

func stream() *cobra.Command {
	var s traffic.Stream
	c := &cobra.Command{Use: "stream ADDRESS:PORT", Short: "Send numbered datagrams of one flow, and count answers that are lost", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			ctx, cancel := interruptible(c)
			defer cancel()
			if s.Target, err = netip.ParseAddrPort(args[0]); err != nil {
				return err
			}
			res, err := s.Run(ctx)
			return report(c.OutOrStdout(), res, err)
		}}
	c.Flags().IntVar(&s.Rate, "rate", 500, "datagrams per second")
	c.Flags().DurationVar(&s.Duration, "duration", 10*time.Second, "time at most")
	return c
}

func tcp() *cobra.Command {
	in := traffic.Receiver{Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), 5001)}
	var d time.Duration
	var rate int
	c := &cobra.Command{Use: "tcp", Short: "Send or receive one TCP stream"}
	receive := &cobra.Command{Use: "receive", Short: "Accept one connection and count its bytes", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := interruptible(c)
			defer cancel()
			in.Ready = listening(c, &in.Addr)
			enc := json.NewEncoder(c.OutOrStdout())
			in.Live = func(r traffic.TCPResult) { _ = enc.Encode(r) } // a reader that left ends us by SIGPIPE
			res, err := in.Run(ctx)
			return report(c.OutOrStdout(), res, err)
		}}
	receive.Flags().TextVar(&in.Addr, "listen", in.Addr, "address and port")
	receive.Flags().DurationVar(&in.Duration, "duration", 10*time.Minute, "time at most")
	receive.Flags().DurationVar(&in.Window, "window", 0, "print this often what has come; the last line is the whole")
	send := &cobra.Command{Use: "send ADDRESS:PORT", Short: "Send as fast as possible", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, cancel := interruptible(c)
			defer cancel()
			to, err := netip.ParseAddrPort(args[0])
			if err != nil {
				return err
			}
			res, err := traffic.Send(ctx, to, d, rate)
			return report(c.OutOrStdout(), res, err)
		}}
	send.Flags().DurationVar(&d, "duration", 5*time.Second, "time of sending")
	send.Flags().IntVar(&rate, "rate", 0, "bytes per second (0: as fast as possible)")
	c.AddCommand(receive, send)
	return c
}

func burn() *cobra.Command {
	var b traffic.Burn
	c := &cobra.Command{Use: "burn", Short: "Take a share of CPU time, and do nothing with it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := interruptible(c)
			defer cancel()
			_ = json.NewEncoder(c.OutOrStdout()).Encode(Ready{}) // from now on it ends when it is asked to
			res, err := b.Run(ctx)
			return report(c.OutOrStdout(), res, err)
		}}
	fl := c.Flags()
	fl.Float64Var(&b.CPUs, "cpus", 1, "how many CPUs' time")
	fl.DurationVar(&b.Duration, "duration", 10*time.Second, "time at most")
	fl.IntVar(&b.Nice, "nice", 0, "niceness")
	return c
}

func tap() *cobra.Command {
	var host, vm, hostIf, nic string
	c := &cobra.Command{Use: "tap", Short: "Stand behind a VM's tap as a hypervisor does", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := interruptible(c)
			defer cancel()
			return plug.Relay(ctx, ns.Space(host), hostIf, ns.Space(vm), nic)
		}}
	fl := c.Flags()
	fl.StringVar(&host, "host-space", "", "namespace of the host")
	fl.StringVar(&hostIf, "host-interface", "", "tap in the host")
	fl.StringVar(&vm, "vm-space", "", "namespace of the VM")
	fl.StringVar(&nic, "vm-interface", "eth0", "tap in the VM")
	return c
}

func interruptible(c *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
}

func listening(c *cobra.Command, addr *netip.AddrPort) func() {
	return func() { _ = json.NewEncoder(c.OutOrStdout()).Encode(Ready{addr.String()}) }
}

// report prints the result also of a run that failed on its way.
func report(w io.Writer, res any, err error) error {
	if e := json.NewEncoder(w).Encode(res); err == nil {
		err = e
	}
	return err
}

func parseTarget(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Prefix(a.BitLen())
}
