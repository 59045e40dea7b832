package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/lab/impair"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// FaultKind is what is wrong.
type FaultKind string

// Faults of the way between two of the hosts and the store, in both directions; and of one of their processes, the agent or the server.
const (
	Partition FaultKind = "partition" // nothing passes
	Loss      FaultKind = "loss"      // some frames do not
	Delay     FaultKind = "delay"     // they are late
	Kill      FaultKind = "kill"      // SIGKILL
	Pause     FaultKind = "pause"     // SIGSTOP
)

// kinds are all of them.
var kinds = []FaultKind{Partition, Loss, Delay, Kill, Pause}

// between says that a fault is of the way between two.
func (k FaultKind) between() bool { return k == Partition || k == Loss || k == Delay }

// Fault is one that was made and is not healed.
type Fault struct {
	Kind  FaultKind     `json:"kind"`
	Names []string      `json:"names"`              // of hosts, or Store: two in order, or one
	Loss  float64       `json:"loss,omitempty"`     // 0 to 1, of the frames of each direction
	Delay time.Duration `json:"delay_ns,omitempty"` // of each direction
	Since time.Time     `json:"since"`
}

// String is what `viaduct lab fault` would be called with.
func (f Fault) String() string {
	words := append([]string{string(f.Kind)}, f.Names...)
	switch f.Kind {
	case Loss:
		words = append(words, percent(f.Loss))
	case Delay:
		words = append(words, f.Delay.String())
	}
	return strings.Join(words, " ")
}

// percent writes a share as it was given: 0.07 times 100 is a little more than 7.
func percent(share float64) string { return strconv.FormatFloat(share*100, 'g', 10, 64) + "%" }

// same says that both are of the same kind and of the same names: one takes the other's place.
func (f Fault) same(g Fault) bool { return f.Kind == g.Kind && slices.Equal(f.Names, g.Names) }

// check completes a fault that is to be made.
func (l *Lab) check(f *Fault) error {
	f.Names = slices.Sorted(slices.Values(f.Names))
	for _, name := range f.Names {
		if _, err := l.Host(name); err != nil && name != Store {
			return fmt.Errorf("%w: faults are of hosts and of %q", err, Store)
		}
	}
	switch want := 1; {
	case !f.Kind.between():
		if len(f.Names) != want {
			return fmt.Errorf("%s is of one process, got %q", f.Kind, f.Names)
		}
	case len(f.Names) != 2 || f.Names[0] == f.Names[1]:
		return fmt.Errorf("%s is of the way between two, got %q", f.Kind, f.Names)
	case l.Underlay == "":
		return fmt.Errorf("%s: laboratory %s has no underlay: its only host has a socket of the server", f.Kind, l.Name)
	}
	if f.Kind != Loss && f.Kind != Delay && slices.ContainsFunc(l.Faults, f.same) {
		return fmt.Errorf("%s: is so already", f)
	}
	return f.bounds()
}

const longestDelay = time.Minute

// bounds checks how much is lost, or how late it is.
func (f Fault) bounds() error {
	switch {
	case f.Kind == Loss && !(f.Loss >= impair.LeastLoss && f.Loss <= 1): // what is not a number is neither
		return fmt.Errorf("loss of %s: want %s to 100%%", percent(f.Loss), percent(impair.LeastLoss))
	case f.Kind == Delay && (f.Delay < time.Microsecond || f.Delay > longestDelay):
		return fmt.Errorf("delay of %s: want %s to %s", f.Delay, time.Microsecond, longestDelay)
	}
	return nil
}

// Break makes a fault. A loss or a delay takes the place of an earlier one of the same way. When ctx ends before its turn has come, nothing is made.
func (l *Lab) Break(ctx context.Context, f Fault) error {
	return l.change(ctx, func() error { return l.inflict(f) })
}

func (l *Lab) inflict(f Fault) error {
	if err := l.check(&f); err != nil {
		return err
	}
	f.Since = time.Now().Truncate(time.Second)
	before := l.Faults
	l.Faults = append(slices.DeleteFunc(slices.Clone(before), f.same), f)
	if f.Kind == Kill { // what is dead is not paused
		l.Faults = slices.DeleteFunc(l.Faults, Fault{Kind: Pause, Names: f.Names}.same)
	}
	if err := l.save(); err != nil { // first, so that whatever happens it can be healed
		return err
	}
	var err error
	if f.Kind.between() {
		err = l.impair()
	} else {
		err = l.signal(f)
	}
	if err == nil {
		return nil
	}
	l.Faults = before
	err = errors.Join(fmt.Errorf("%s: %w", f, err), l.save())
	if f.Kind.between() {
		err = errors.Join(err, l.impair())
	}
	return err
}

// Heal undoes faults, in an order in which a process that is started again finds its way to the others. It
// returns when these are ready; those that failed are faults still.
func (l *Lab) Heal(ctx context.Context, faults ...Fault) error {
	faults = slices.Clone(faults) // they may be l.Faults
	var errs []error
	if err := l.change(ctx, func() error { return l.mend(faults) }); err != nil {
		errs = append(errs, err)
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { // the store first
		switch {
		case a.Names[0] == b.Names[0]:
			return 0
		case a.Names[0] == Store:
			return -1
		case b.Names[0] == Store:
			return 1
		}
		return 0
	})
	for _, f := range faults {
		if !f.Kind.between() {
			if err := l.revive(ctx, f); err != nil {
				errs = append(errs, fmt.Errorf("heal %s: %w", f, err))
			}
		}
	}
	return errors.Join(errs...)
}

// mend undoes those of the faults that are of the underlay.
func (l *Lab) mend(faults []Fault) error {
	before := l.Faults
	l.Faults = slices.DeleteFunc(slices.Clone(before), func(f Fault) bool { return f.Kind.between() && slices.ContainsFunc(faults, f.same) })
	if len(l.Faults) == len(before) {
		return nil
	}
	err := l.impair()
	if err != nil {
		l.Faults = before
	}
	return errors.Join(err, l.save())
}

// revive undoes the fault of a process, unless somebody has meanwhile, and waits until what was killed is ready. While it waits, others
// may change the laboratory: an agent may not become ready before they do.
func (l *Lab) revive(ctx context.Context, f Fault) error {
	ready := func(context.Context) error { return nil }
	err := l.change(ctx, func() (err error) {
		if !slices.ContainsFunc(l.Faults, f.same) {
			return nil
		}
		name := f.Names[0]
		space, pid, err := l.daemon(name)
		switch {
		case err != nil:
			return err
		case f.Kind == Pause:
			if err := sendTo(space, pid, unix.SIGCONT); err != nil {
				return err
			}
			l.alive(name)
			return l.save()
		case name == Store:
			ready, err = l.launchServer()
			return err
		}
		h, err := l.Host(name)
		if err != nil {
			return err
		}
		up, err := l.launchAgent(h)
		ready = func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, agentPatience)
			defer cancel()
			return up(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	return ready(ctx)
}

// alive takes the faults of a process off the list: it runs.
func (l *Lab) alive(name string) {
	l.Faults = slices.DeleteFunc(l.Faults, func(f Fault) bool { return !f.Kind.between() && f.Names[0] == name })
}

// impair has the underlay be what the faults say.
func (l *Lab) impair() error {
	var ways []impair.Way
	for _, f := range l.Faults {
		if !f.Kind.between() {
			continue
		}
		a, b := l.cable(f.Names[0]), l.cable(f.Names[1])
		for _, ends := range [][2]string{{a, b}, {b, a}} {
			i := slices.IndexFunc(ways, func(w impair.Way) bool { return w.From == ends[0] && w.To == ends[1] })
			if i < 0 {
				i = len(ways)
				ways = append(ways, impair.Way{From: ends[0], To: ends[1]})
			}
			switch f.Kind {
			case Partition:
				ways[i].Cut = true
			case Loss:
				ways[i].Loss = f.Loss
			case Delay:
				ways[i].Delay = f.Delay
			}
		}
	}
	return impair.Set(l.Underlay, ways)
}

// daemon is the agent of a host, or the server.
func (l *Lab) daemon(name string) (space ns.Space, pid int, err error) {
	if name == Store {
		return l.Server.Space, l.Server.PID, nil
	}
	h, err := l.Host(name)
	if err != nil {
		return "", 0, err
	}
	return h.Space, h.PID, nil
}

// signal kills or pauses a process. What is killed is gone when it returns.
func (l *Lab) signal(f Fault) error {
	space, pid, err := l.daemon(f.Names[0])
	if err != nil {
		return err
	}
	if f.Kind == Pause {
		return sendTo(space, pid, unix.SIGSTOP)
	}
	if err := running(space, pid); err != nil {
		return err
	}
	const patience = 10 * time.Second
	return ns.End(pid, patience)
}

// running is nil when the process is there, and no other one has got its id.
func running(space ns.Space, pid int) error {
	pids, err := space.Processes()
	if err == nil && !slices.Contains(pids, pid) {
		err = fmt.Errorf("its process %d does not run", pid)
	}
	return err
}

func sendTo(space ns.Space, pid int, s unix.Signal) error {
	if err := running(space, pid); err != nil {
		return err
	}
	return unix.Kill(pid, s)
}
