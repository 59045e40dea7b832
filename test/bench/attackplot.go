package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"slices"
	"strings"
)

// drawAttacks makes tables in Markdown and a plot of lines of the suite; other lines are skipped, and of two of the same attack the last counts.
func drawAttacks(in io.Reader, out io.Writer, plot string) error {
	all := map[string]attackLine{}
	var order []string // attacks
	var rogues []int
	var nets []string
	sc := bufio.NewScanner(in)
	for sc.Scan() {
		var l attackLine
		if json.Unmarshal(sc.Bytes(), &l) != nil || l.Figure != "attack" {
			continue
		}
		all[cell(l.Net, l.Attack, l.Rogues)] = l
		if !slices.Contains(order, l.Attack) {
			order = append(order, l.Attack)
		}
		if l.Attack != "idle" && !slices.Contains(rogues, l.Rogues) {
			rogues = append(rogues, l.Rogues)
		}
		if !slices.Contains(nets, l.Net) {
			nets = append(nets, l.Net)
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("no lines of the attack suite were read")
	}
	slices.Sort(rogues)
	for _, n := range rogues {
		fmt.Fprintf(out, "\n%d attacking:\n\n| attack |", n)
		for _, net := range nets {
			fmt.Fprintf(out, " %s: lost | p50, p99, p99.9 us | beside senders: p99 | TCP | to beside senders | CPUs | MiB |", net)
		}
		fmt.Fprintf(out, "\n| --- |%s\n", strings.Repeat(strings.Repeat(" --- |", 7), len(nets)))
		for _, a := range order {
			fmt.Fprintf(out, "| %s |", a)
			for _, net := range nets {
				l, ok := all[cell(net, a, n)]
				if a == "idle" {
					l, ok = all[cell(net, a, 0)]
				}
				if !ok {
					fmt.Fprint(out, strings.Repeat(" |", 7))
					continue
				}
				fmt.Fprintf(out, " %s | %d, %d, %d%s | %d | %.2f | %.2f | %.2f | %.0f |", percent(l), l.P50, l.P99, l.P999, map[bool]string{true: " (disturbed)"}[l.Disturbed],
					l.SendersP99, l.TCPRatio, l.SendersTCPRatio, l.SwitchCPU, l.RSS)
			}
			fmt.Fprintln(out)
		}
	}
	return os.WriteFile(plot, []byte(attackSVG(all, order, rogues, nets)), 0o644)
}

func cell(net, attack string, rogues int) string { return fmt.Sprint(net, " ", attack, " ", rogues) }

func percent(l attackLine) string {
	if l.Lost == 0 {
		return "0"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(l.Lost)/float64(l.Flows))
}

// attackSVG has a bar for the victim's p99 under each attack, on a logarithmic scale, and says beside it what was lost.
func attackSVG(all map[string]attackLine, order []string, rogues []int, nets []string) string {
	const (
		left, width, bar, gap = 130, 560, 9, 7
		least, most           = 100.0, 1e6 // us
	)
	colours := []string{"#1a7f37", "#cf222e", "#0969da", "#9a6700"}
	x := func(us float64) float64 {
		return left + width*math.Log(max(us, least)/least)/math.Log(most/least)
	}
	var b strings.Builder
	y := 56.0
	for _, n := range rogues {
		fmt.Fprintf(&b, `<text x="%d" y="%.0f" font-weight="bold">%d attacking</text>`+"\n", left, y, n)
		y += 10
		for _, a := range order {
			if a == "idle" {
				continue
			}
			top := y
			for i, net := range nets {
				l, ok := all[cell(net, a, n)]
				if !ok {
					continue
				}
				us, label := float64(l.P99), ""
				if l.Lost > 0 {
					label = percent(l) + " lost"
					if l.Lost == l.Flows {
						us = least
					}
				}
				fmt.Fprintf(&b, `<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%.1f" font-size="9">%s</text>`+"\n",
					left, y, max(x(us)-left, 1), bar, colours[i%len(colours)], x(us)+4, y+bar-1, html.EscapeString(label))
				y += bar
			}
			fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left-6, (top+y)/2+4, html.EscapeString(a))
			y += gap
		}
		y += 24
	}
	var head strings.Builder
	fmt.Fprintf(&head, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 %.0f" font-family="sans-serif" font-size="11">`+"\n"+`<rect width="100%%" height="100%%" fill="white"/>`+"\n", y+10)
	fmt.Fprintf(&head, `<text x="%d" y="18" font-size="13">First round trip of a victim's new flow, p99, while others attack (log scale)</text>`+"\n", left)
	for i, net := range nets {
		idle := all[cell(net, "idle", 0)]
		fmt.Fprintf(&head, `<rect x="%d" y="26" width="10" height="10" fill="%s"/><text x="%d" y="35">%s (idle: %d us, dashed)</text>`+"\n", left+i*200, colours[i%len(colours)], left+14+i*200, net, idle.P99)
		fmt.Fprintf(&head, `<line x1="%.1f" x2="%.1f" y1="44" y2="%.0f" stroke="%s" stroke-dasharray="3 3"/>`+"\n", x(float64(idle.P99)), x(float64(idle.P99)), y-24, colours[i%len(colours)])
	}
	for us := least; us <= most; us *= 10 {
		name := fmt.Sprintf("%g us", us)
		if us >= 1000 {
			name = fmt.Sprintf("%g ms", us/1000)
		}
		fmt.Fprintf(&head, `<line x1="%.1f" x2="%.1f" y1="44" y2="%.0f" stroke="#ddd"/><text x="%.1f" y="%.0f" text-anchor="middle" fill="#555">%s</text>`+"\n", x(us), x(us), y-18, x(us), y-4, name)
	}
	return head.String() + b.String() + "</svg>\n"
}
