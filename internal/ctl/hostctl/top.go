package hostctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

func topCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "top",
		Short: "Show live which ports use the agent: share, new flows, drops, credit, latency",
		Long: "On a terminal the table is renewed in place until interrupted; elsewhere, and with -n, one table follows the other. " +
			"SHARE is of the time that the agent spent on misses; P99 is from a miss until its flow is installed and it is sent.",
		Example: "  viaduct top\n  viaduct top -n 1 --interval 5s\n  viaduct top -n 1 -o json",
		Args:    cobra.NoArgs,
	}
	socket := socketFlag(c)
	form := output.StreamFlag(c, output.Table)
	interval := c.Flags().Duration("interval", time.Second, "time between two tables")
	count := c.Flags().IntP("count", "n", 0, "end after so many tables; 0: until interrupted")
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case *interval < 100*time.Millisecond:
			return exit.Usagef("--interval %s: want 100ms or more", *interval)
		case *count < 0:
			return exit.Usagef("-n %d: want 0 or more", *count)
		}
		w := c.OutOrStdout()
		f, isFile := w.(*os.File)
		s := screen{w: w, form: *form, inPlace: isFile && term.IsTerminal(int(f.Fd())) && *count == 0 && *form == output.Table}
		return s.run(c.Context(), debug.NewClient(*socket), *interval, *count)
	}
	return c
}

// topLine is what one port did in an interval.
type topLine struct {
	Port      string        `json:"port"`
	Interface string        `json:"interface"`
	Share     float64       `json:"share"`      // of the agent's processing time; 0 when it had nothing to do
	NewFlows  float64       `json:"admitted_s"` // misses a second
	Received  float64       `json:"received_s"` // packets a second
	Sent      float64       `json:"sent_s"`
	Refused   float64       `json:"refused_s"` // by the kernel, for want of credit
	Dropped   float64       `json:"dropped_s"` // for other reasons
	Credit    int64         `json:"credit"`
	Queued    int           `json:"queued"`
	P50, P99  time.Duration `json:"-"`
	Reason    string        `json:"reason,omitempty"` // the most frequent of Dropped
}

// compare makes of two looks at the ports what happened in between, the greatest share first.
func compare(before, after []debug.Port, took time.Duration) []topLine {
	was := make(map[string]debug.Port, len(before))
	for _, p := range before {
		was[p.ID+p.Interface] = p
	}
	var work int64
	lines := make([]topLine, 0, len(after))
	works := make(map[string]int64, len(after))
	for _, p := range after {
		b := was[p.ID+p.Interface]
		if b.RxPackets > p.RxPackets || b.Admitted > p.Admitted || b.Work > p.Work {
			b = debug.Port{} // it has been made anew meanwhile
		}
		l := topLine{
			Port: cmp.Or(p.Name, p.ID), Interface: p.Interface, Credit: p.Credit, Queued: p.Queued,
			NewFlows: rate(p.Admitted, b.Admitted, took), Received: rate(p.RxPackets, b.RxPackets, took), Sent: rate(p.TxPackets, b.TxPackets, took),
		}
		most := uint64(0)
		for r, n := range p.Drops {
			n -= b.Drops[r]
			if r == "no_credit" {
				l.Refused = float64(n) / took.Seconds()
				continue
			}
			l.Dropped += float64(n) / took.Seconds()
			if n > most || n == most && n > 0 && r < l.Reason {
				most, l.Reason = n, r
			}
		}
		l.P50, l.P99 = quantile(p.Setups, b.Setups, 0.5), quantile(p.Setups, b.Setups, 0.99)
		works[l.Port+l.Interface] = p.Work - b.Work
		work += p.Work - b.Work
		lines = append(lines, l)
	}
	for i := range lines {
		if work > 0 {
			lines[i].Share = float64(works[lines[i].Port+lines[i].Interface]) / float64(work)
		}
	}
	slices.SortStableFunc(lines, func(x, y topLine) int {
		return cmp.Or(cmp.Compare(y.Share, x.Share), cmp.Compare(y.Received, x.Received), cmp.Compare(x.Port, y.Port))
	})
	return lines
}

func rate(now, before uint64, took time.Duration) float64 {
	return float64(now-before) / took.Seconds()
}

// quantile is the upper bound of the bucket that it falls into; 0 when nothing happened.
func quantile(now, before []uint64, q float64) time.Duration {
	var total uint64
	diff := make([]uint64, len(now))
	for i := range now {
		diff[i] = now[i]
		if i < len(before) {
			diff[i] -= before[i]
		}
		total += diff[i]
	}
	if total == 0 {
		return 0
	}
	var sum uint64
	for i, n := range diff {
		if sum += n; float64(sum) >= q*float64(total) {
			return time.Microsecond << i
		}
	}
	return 0
}

type screen struct {
	w       io.Writer
	form    output.Form
	inPlace bool
}

func (s screen) run(ctx context.Context, client *debug.Client, every time.Duration, count int) error {
	before, err := client.Ports(ctx)
	if err != nil {
		return err
	}
	if s.inPlace {
		fmt.Fprint(s.w, "\x1b[?1049h\x1b[?25l")       // another screen, no cursor
		defer fmt.Fprint(s.w, "\x1b[?25h\x1b[?1049l") // as it was
	}
	at := time.Now()
	t := time.NewTicker(every)
	defer t.Stop()
	for n := 0; count == 0 || n < count; n++ {
		select {
		case <-ctx.Done():
			return nil // interrupted, as is proper
		case <-t.C:
		}
		after, err := client.Ports(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		now := time.Now()
		if err := s.show(compare(before, after, now.Sub(at)), now); err != nil {
			return err
		}
		before, at = after, now
	}
	return nil
}

func (s screen) show(lines []topLine, now time.Time) error {
	if s.form.Machine() {
		type row struct {
			topLine
			P50 int64 `json:"setup_p50_ns"`
			P99 int64 `json:"setup_p99_ns"`
		}
		rows := make([]row, len(lines))
		for i, l := range lines {
			rows[i] = row{l, int64(l.P50), int64(l.P99)}
		}
		return s.form.Next(s.w, struct {
			Time  time.Time `json:"time"`
			Ports []row     `json:"ports"`
		}{now, rows})
	}
	if s.inPlace {
		fmt.Fprint(s.w, "\x1b[H\x1b[2J")
	}
	fmt.Fprintf(s.w, "%s  %d ports\n", now.Format(time.TimeOnly), len(lines))
	t := newTable(s.w, "PORT", "INTERFACE", "SHARE", "NEW/S", "RX/S", "TX/S", "REFUSED/S", "DROPPED/S", "CREDIT", "QUEUED", "P50", "P99", "REASON")
	for _, l := range lines {
		t.AppendRow([]any{l.Port, l.Interface, fmt.Sprintf("%.1f %%", 100*l.Share), whole(l.NewFlows), whole(l.Received), whole(l.Sent), whole(l.Refused), whole(l.Dropped),
			l.Credit, l.Queued, below(l.P50), below(l.P99), l.Reason})
	}
	t.Render()
	return nil
}

func whole(f float64) string { return fmt.Sprintf("%.0f", f) }

func below(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return "<" + d.String()
}
