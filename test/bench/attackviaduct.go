package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/attacks"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// labArena is Viaduct's.
type labArena struct{ *lab.Lab }

// victimsRoom is a bound on connections that the victims do not meet themselves: each of their flows is two connections of the port that began it, one with each
// group, and twenty attacks are over before the first ones are forgotten.
const victimsRoom = "agent.conntrack.max_per_port=131072"

func viaductArena(ctx context.Context, b *bench, rogues int) (arena, error) {
	a, err := arenaOf(ctx, b, attacks.Document(rogues), append([]string{victimsRoom}, b.flowConf...))
	if err != nil {
		return nil, err
	}
	if err := deafen(a, rogues); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func arenaOf(ctx context.Context, b *bench, text string, conf []string) (arena, error) {
	set, err := document.Parse(strings.NewReader(text), "attacks.yaml")
	if err != nil {
		return nil, err
	}
	l, err := lab.Up(ctx, lab.Options{Name: fmt.Sprintf("bench%d", os.Getpid()), Binary: b.binary, Conf: conf}, set)
	if err != nil {
		return nil, err
	}
	return labArena{l}, nil
}

func (a labArena) space(vm string) (ns.Space, error) { return a.Space(vm) }
func (a labArena) processes() []int                  { return []int{a.Hosts[0].PID} }
func (a labArena) close() error                      { return a.Down() }

func (a labArena) inject(ctx context.Context) error {
	set, err := document.Parse(strings.NewReader(attacks.PolicyDocument()), "policy.yaml")
	if err != nil {
		return err
	}
	c, err := client.New("unix://" + a.Server.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = set.Apply(ctx, c)
	return err
}

// dropped counts by reason what the victims' ports have dropped so far.
func (a labArena) dropped(ctx context.Context) (map[string]uint64, error) {
	ports, err := debug.NewClient(a.Hosts[0].Socket()).Ports(ctx)
	if err != nil {
		return nil, err
	}
	sum := make(map[string]uint64)
	for _, p := range ports {
		if p.Name != "alice" && p.Name != "bob" {
			continue
		}
		for reason, n := range p.Drops {
			sum[reason] += n
		}
	}
	return sum, nil
}

// balanced reports packets and tokens that do not add up.
func (a labArena) balanced(ctx context.Context) error {
	agent := debug.NewClient(a.Hosts[0].Socket())
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		s, err := agent.Stats(ctx)
		if err != nil {
			return err
		}
		ended := s.Executed + s.Consumed + uint64(s.Waiting)
		for _, n := range s.Dropped {
			ended += n
		}
		if ended == s.In && s.Taken == s.Returned+uint64(s.InFlight) && s.Dropped["internal"] == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("does not add up: in %d, ended %d; tokens taken %d, returned %d, in flight %d; %v", s.In, ended, s.Taken, s.Returned, s.InFlight, s.Dropped)
		}
	}
}
