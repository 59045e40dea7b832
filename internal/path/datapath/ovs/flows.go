package ovs

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

const (
	batchBytes = 128 << 10 // of requests in one system call
	dumpTries  = 3         // for a dump that was interrupted
)

// flowTable writes the kernel's flow table.
type flowTable struct {
	mu     sync.Mutex
	conn   *conn
	errs   []error // of a batch, by its index
	failed func(seq uint32, err error)
	first  uint32 // number of the batch's first message
}

// PutFlows implements datapath.Datapath. Replacing a flow keeps its counters.
func (d *Datapath) PutFlows(fs []datapath.Flow) (int, error) {
	if d.closed.Load() {
		return 0, datapath.ErrClosed
	}
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	if d.closed.Load() { // while we waited
		return 0, datapath.ErrClosed
	}
	done := 0
	for done < len(fs) {
		n, err := d.putBatch(fs[done:])
		if done += n; err != nil {
			return done, fmt.Errorf("flow %d: %w", done, err)
		}
	}
	return done, nil
}

// putBatch puts as many flows as fit into one system call, and says how many from the front were installed.
func (d *Datapath) putBatch(fs []datapath.Flow) (int, error) {
	t, n := &d.table, 0
	var bad error
	t.begin()
	for n < len(fs) && (n == 0 || len(t.conn.msg.b) < batchBytes) {
		if bad = d.encode(&fs[n], 0); bad != nil {
			break
		}
		n++
	}
	switch err := t.flush(n); {
	case err != nil: // what became of them is not known: once more, one by one
		for i := range n {
			if err := d.putOne(&fs[i]); err != nil {
				return i, err
			}
		}
	default:
		for i, err := range t.errs[:n] {
			if err == nil {
				continue
			}
			// The kernel has gone on with the rest. Those flows go: they count as not installed.
			rest := make([]match.Key, 0, n-i)
			for j := i + 1; j < n; j++ {
				rest = append(rest, fs[j].Key)
			}
			return i, errors.Join(flowError(err), d.delFlows(rest))
		}
	}
	return n, bad
}

// encode appends the request to install f. Without NLM_F_CREATE, the module makes it or replaces the actions of the one
// that is there; with it, it would refuse the latter.
func (d *Datapath) encode(f *datapath.Flow, flags uint16) error {
	if err := holds(&f.Key); err != nil {
		return fmt.Errorf("%w: %w", datapath.ErrKey, err)
	}
	m := &d.table.conn.msg
	class, tunnel := d.classOf(&f.Key)
	at := d.table.conn.request(d.flows, cmdNew, flags, d.ifindex)
	m.flowKey(&f.Key, tunnel)
	mask := m.nest(flowMask)
	keyWriter{m, true}.key(&f.Key, tunnel)
	m.close(mask)
	as := m.nest(flowActions)
	if err := m.actions(&f.Key, f.Actions, d.pid(f.Key.InPort, class)); err != nil {
		m.b = m.b[:at]
		return err
	}
	m.close(as)
	m.end(at)
	return nil
}

func (m *message) flowKey(k *match.Key, tunnel bool) {
	at := m.nest(flowKey)
	keyWriter{m, false}.key(k, tunnel)
	m.close(at)
}

// classOf returns the class of the key's port, and whether the key is that of packets from a tunnel, which it
// says itself once the port has been deleted.
func (d *Datapath) classOf(k *match.Key) (class datapath.Class, tunnel bool) {
	if p := d.port(k.InPort); p != nil {
		class = p.class
	}
	return class, class == datapath.Tunnel || k.TunKey != 0
}

func (d *Datapath) putOne(f *datapath.Flow) error {
	t := &d.table
	at := len(t.conn.msg.b)
	if err := d.encode(f, unix.NLM_F_ACK); err != nil {
		return err
	}
	return flowError(t.conn.call(at, nil))
}

// flowError says in the contract's words what the kernel thinks of a flow.
func flowError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.E2BIG), errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("%w: %w", datapath.ErrActions, err)
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("%w: %w", datapath.ErrFull, err)
	}
	return err
}

// begin starts a batch.
func (t *flowTable) begin() {
	t.conn.msg.b = t.conn.msg.b[:0]
	t.first = t.conn.seq + 1
	if t.failed == nil {
		t.failed = func(seq uint32, err error) {
			if i := seq - t.first; i < uint32(len(t.errs)) && t.errs[i] == nil {
				t.errs[i] = err
			}
		}
	}
}

// flush sends a batch of n messages; what the kernel says of each is in errs.
func (t *flowTable) flush(n int) error {
	for cap(t.errs) < n {
		t.errs = append(t.errs[:cap(t.errs)], nil)
	}
	t.errs = t.errs[:n]
	clear(t.errs)
	return t.conn.flush(t.failed)
}

// DelFlows implements datapath.Datapath.
func (d *Datapath) DelFlows(keys []match.Key) error {
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	return d.delFlows(keys)
}

func (d *Datapath) delFlows(keys []match.Key) error {
	t := &d.table
	for len(keys) > 0 {
		n, sent := 0, 0
		t.begin()
		for ; n < len(keys) && len(t.conn.msg.b) < batchBytes; n++ {
			if holds(&keys[n]) == nil {
				d.encodeDel(&keys[n], 0)
				sent++
			}
		}
		if err := t.flush(sent); err != nil {
			if err := d.delOneByOne(keys[:n]); err != nil {
				return err
			}
		}
		for _, err := range t.errs[:sent] {
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("delete flow: %w", err)
			}
		}
		keys = keys[n:]
	}
	return nil
}

func (d *Datapath) encodeDel(k *match.Key, flags uint16) (at int) {
	c := d.table.conn
	_, tunnel := d.classOf(k)
	at = c.request(d.flows, cmdDel, flags, d.ifindex)
	c.msg.flowKey(k, tunnel)
	c.msg.end(at)
	return at
}

func (d *Datapath) delOneByOne(keys []match.Key) error {
	for i := range keys {
		if holds(&keys[i]) != nil {
			continue
		}
		err := d.table.conn.call(d.encodeDel(&keys[i], unix.NLM_F_ACK), nil)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete flow: %w", err)
		}
	}
	return nil
}

var errStop = errors.New("no more wanted")

// DumpFlows implements datapath.Datapath. A flow that was never used is said to be idle since the datapath was opened: the module
// does not keep when it was made. Flows of somebody else are left out. After an interruption the dump starts over:
// flows come twice then, with newer counters.
func (d *Datapath) DumpFlows(fn func(*datapath.FlowInfo) bool) error {
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	c, err := newConn() // others go on meanwhile, also fn
	if err != nil {
		return err
	}
	defer c.close()
	return d.dumpFlows(c, fn)
}

func (d *Datapath) dumpFlows(c *conn, fn func(*datapath.FlowInfo) bool) error {
	var info datapath.FlowInfo
	var scratch message
	err := d.dumpRaw(c, func(b []byte) error {
		now := monotonic()
		if err := parseFlow(&info, b, now, &scratch); errors.Is(err, errForeign) {
			return nil
		} else if err != nil {
			return err
		}
		if info.Packets == 0 {
			info.Idle = time.Duration(now - d.opened)
		}
		if !fn(&info) {
			return errStop
		}
		return nil
	})
	if err == nil || errors.Is(err, errStop) {
		return nil
	}
	return fmt.Errorf("dump flows: %w", err)
}

// dumpRaw hands over the attributes of each flow, from the beginning again when the dump was interrupted.
func (d *Datapath) dumpRaw(c *conn, fn func(b []byte) error) error {
	for range dumpTries {
		at := c.request(d.flows, cmdGet, unix.NLM_F_DUMP, d.ifindex)
		again, err := c.dump(at, func(r *reply) error {
			_, _, b, err := r.payload()
			if err != nil {
				return err
			}
			return fn(b)
		})
		if err != nil || !again {
			return err
		}
	}
	return unix.EINTR
}

// parseFlow fills info from a flow's attributes, but for Idle when it was never used.
func parseFlow(info *datapath.FlowInfo, b []byte, now int64, scratch *message) (err error) {
	*info = datapath.FlowInfo{Actions: info.Actions[:0]}
	var key, mask, actions []byte
	as := attrs{b: b}
	for as.next() {
		switch d := as.data; as.typ {
		case flowKey:
			key = d
		case flowMask:
			mask = d
		case flowActions:
			actions = d
		case flowStats:
			if len(d) >= 16 {
				info.Packets, info.Bytes = ne.Uint64(d), ne.Uint64(d[8:])
			}
		case flowTCPFlags:
			if len(d) >= 1 {
				info.TCPFlags = d[0] & (packet.FlagFIN | packet.FlagRST)
			}
		case flowUsed:
			if len(d) >= 8 {
				info.Idle = max(0, time.Duration(now)-time.Duration(ne.Uint64(d))*time.Millisecond)
			}
		}
	}
	if as.err != nil {
		return as.err
	}
	if info.Key, err = parseKey(key, mask, scratch); err != nil {
		return err
	}
	info.Actions, err = parseActions(info.Actions, actions)
	return err
}
