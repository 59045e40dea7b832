package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state/conntrack"
	"github.com/viaduct-net/viaduct/internal/state/nat"
	"github.com/viaduct-net/viaduct/internal/state/replicate"
)

// Connections that have a flow are learnt again from it by the next agent. Those that have none, because they are silent for longer than
// flows last, and those whose flows do not tell who began them, are kept in a file: it is written more often than flows expire, so that after an agent's sudden end
// every connection is in one or the other. Of the machine's own end nothing need survive, as its VMs do not either.
const (
	connectionsFile = "connections"
	keepEvery       = 30 * time.Second
	keepMagic       = "viaduct connections 2\n"
)

// keepConnections writes the file until ctx ends, and then once more.
func (a *Agent) keepConnections(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		a.troubles.set(troubleConnections, "silent connections would not survive the agent", cure(a.cfg.RunDir, a.writeConnections()))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// writeConnections replaces the file, whole or not at all.
func (a *Agent) writeConnections() (err error) {
	path := filepath.Join(a.cfg.RunDir, connectionsFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(path + ".new")
			return
		}
		err = os.Rename(path+".new", path)
	}()
	w := bufio.NewWriterSize(f, 1<<16)
	sum := crc32.NewIEEE()
	out := io.MultiWriter(w, sum)
	if _, err = out.Write([]byte(keepMagic)); err != nil {
		return err
	}
	var failed error
	record := make([]byte, 0, replicate.ConnLen)
	a.tables.UntoldConnections(func(c *conntrack.Conn, s conntrack.State) {
		if failed == nil && c.Kind.IsConnection() {
			record = replicate.AppendConn(record[:0], &replicate.Conn{Conn: *c, State: s})
			_, failed = out.Write(record)
		}
	})
	if failed != nil {
		return failed
	}
	if _, err = w.Write(sum.Sum(nil)); err != nil {
		return err
	}
	return w.Flush()
}

// restoreConnections reads what an earlier agent has kept. What cannot be read is not there.
func (a *Agent) restoreConnections() {
	n, err := a.readConnections()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		a.log.Warn("silent connections of an earlier agent are lost", "error", err, "file", setAside(filepath.Join(a.cfg.RunDir, connectionsFile)))
	case n > 0:
		a.log.Info("silent connections restored", "connections", n)
	}
}

func (a *Agent) readConnections() (n int, err error) {
	path := filepath.Join(a.cfg.RunDir, connectionsFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	bad := fmt.Errorf("%s is damaged, or of another version", path)
	body := len(b) - len(keepMagic) - crc32.Size
	if body < 0 || string(b[:len(keepMagic)]) != keepMagic || body%replicate.ConnLen != 0 {
		return 0, bad
	}
	sum := crc32.NewIEEE()
	sum.Write(b[:len(b)-crc32.Size])
	if string(sum.Sum(nil)) != string(b[len(b)-crc32.Size:]) {
		return 0, bad
	}
	type block struct {
		nat.Pool
		first uint16
	}
	resumed := map[block]bool{}
	records := b[len(keepMagic) : len(b)-crc32.Size]
	for i := range body / replicate.ConnLen {
		c, ok := replicate.ConnAt(records, i)
		if !ok {
			continue
		}
		if _, v := a.tables.MergeConnection(c.Conn, c.State, nil); v == conntrack.Added {
			n++
		}
		// A block is leased as long as a connection has one of its ports, and no other host may have it meanwhile.
		at := block{nat.Pool{Device: c.Device, Addr: c.Reply.Dst}, c.Reply.DstPort &^ (nat.BlockSize - 1)}
		if c.Kind == tag.Translation && at.first != 0 && !resumed[at] {
			resumed[at] = true
			a.tables.ResumePorts(&c.Conn, func(changed tag.Tag) { a.changed(nil, []tag.Tag{changed}) })
		}
	}
	return n, nil
}
