package demo

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/viaduct-net/viaduct/internal/lab/traffic"
)

// The plot's height is logarithmic time: a row is a third of a decade, from 0.05 ms up to 1 s.
const (
	plotBottom = 50.0 // microseconds
	rowsDecade = 3
	plotRows   = 13
	margin     = 10 // columns for the scale
)

// plot shows the victim's latency as it is measured: drawn anew on a terminal, else a line a second.
type plot struct {
	out     io.Writer
	width   int // columns for windows; 0: lines
	columns []column
	drawn   bool
	lost    int64
	sent    int64
}

type column struct {
	phase    string
	p50, p99 int64
	lost     bool
}

func newPlot(out io.Writer, terminal, windows int) *plot {
	width := 0
	if terminal > margin+10 {
		width = min(terminal-margin-1, windows)
	}
	return &plot{out: out, width: width}
}

// add shows the window r.
func (p *plot) add(phase string, r traffic.ProbeResult) {
	p.sent += r.Sent
	p.lost += r.Lost
	p.columns = append(p.columns, column{phase, r.P50, r.P99, r.Lost > 0})
	if p.width > 0 {
		p.draw(phase, r)
	} else if len(p.columns)%2 == 0 {
		fmt.Fprintf(p.out, "   %-6s  p50 %-8s p99 %-8s lost %d\n", phase, micros(r.P50), micros(r.P99), p.lost)
	}
}

func (p *plot) draw(phase string, r traffic.ProbeResult) {
	var b strings.Builder
	if p.drawn {
		fmt.Fprintf(&b, "\x1b[%dA", plotRows+2)
	}
	p.drawn = true
	shown := p.columns[max(0, len(p.columns)-p.width):]
	for row := plotRows - 1; row >= 0; row-- {
		fmt.Fprintf(&b, "\x1b[2K%s|", scale(row))
		for _, c := range shown {
			b.WriteString(c.cell(row))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\x1b[2K%*s+%s\n", margin-1, "", axis(shown))
	fmt.Fprintf(&b, "\x1b[2K   %s the flood: p50 %s (o), p99 %s (*), %d of %d flows lost (X)\n", phase, micros(r.P50), micros(r.P99), p.lost, p.sent)
	fmt.Fprint(p.out, b.String())
}

// cell is what a window has in a row.
func (c column) cell(row int) string {
	switch {
	case c.lost && row == plotRows-1:
		return "X"
	case rowOf(c.p50) == row:
		return "o"
	case rowOf(c.p99) == row:
		return "*"
	case rowOf(c.p50) < row && row < rowOf(c.p99):
		return ":"
	}
	return " "
}

// rowOf is the row of a time, from 0.
func rowOf(us int64) int {
	if float64(us) <= plotBottom {
		return 0
	}
	return min(plotRows-1, int(math.Log10(float64(us)/plotBottom)*rowsDecade))
}

// scale labels the first row of each decade.
func scale(row int) string {
	if row%rowsDecade != 0 {
		return strings.Repeat(" ", margin-1)
	}
	return fmt.Sprintf("%*s ", margin-2, micros(int64(plotBottom*math.Pow10(row/rowsDecade))))
}

// axis names the phases where they begin.
func axis(columns []column) string {
	b := []byte(strings.Repeat("-", len(columns)))
	for i, c := range columns {
		if i == 0 || c.phase != columns[i-1].phase {
			copy(b[i:], c.phase)
		}
	}
	return string(b)
}
