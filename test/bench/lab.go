package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/viaduct-net/viaduct/internal/api/document"
	"github.com/viaduct-net/viaduct/internal/lab"
	"github.com/viaduct-net/viaduct/internal/lab/examples"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
	"github.com/viaduct-net/viaduct/internal/lab/tool"
)

// withLab runs f in a laboratory of two subnets.
func (b *bench) withLab(ctx context.Context, conf []string, f func(*lab.Lab) error) (err error) {
	return b.withLabOf(ctx, examples.TwoSubnets, conf, f)
}

// withLabOf runs f in a laboratory of a document.
func (b *bench) withLabOf(ctx context.Context, text string, conf []string, f func(*lab.Lab) error) (err error) {
	set, err := document.Parse(strings.NewReader(text), "lab.yaml")
	if err != nil {
		return err
	}
	l, err := lab.Up(ctx, lab.Options{Name: fmt.Sprintf("bench%d", os.Getpid()), Binary: b.binary, Conf: conf}, set)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	return f(l)
}

func (b *bench) tools() tool.Runner { return tool.Runner{Command: []string{b.binary, "lab", "tool"}} }

// spaces finds VMs of a laboratory by name.
func spaces(l *lab.Lab, names ...string) ([]ns.Space, error) {
	var list []ns.Space
	for _, n := range names {
		s, err := l.Space(n)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
