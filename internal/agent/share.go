package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/base/tag"
	"github.com/viaduct-net/viaduct/internal/state"
	"github.com/viaduct-net/viaduct/internal/topo/live"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// sharer tells other hosts which MAC and neighbour addresses this one has learnt, and takes over what they have: entries in the
// store that live as long as the host that wrote them.
type sharer struct {
	host   string
	tables *state.Tables
	store  store.Shared
	log    *slog.Logger
	// changed is told of what other hosts have learnt.
	changed func([]tag.Tag)
	// wanted reports whether there is anybody to tell.
	wanted func() bool

	wake chan struct{} // holds one: there is something to tell

	mu    sync.Mutex
	dirty map[tag.Tag]struct{} // to be told; guarded by mu
	again []tag.Tag            // that another host had told last, and took back; guarded by mu
	lost  uint64               // changes that were too many to be told; guarded by mu
	far   map[tag.Tag]bool     // that other hosts have told; written in hear alone; guarded by mu
	heard uint64               // how often far, or what it says, may have changed; guarded by mu

	told map[tag.Tag]state.Learnt // of the goroutine in tell
	old  []store.Session          // of earlier sessions, until all is told in the present one; of the goroutine in tell
}

const (
	// maxUntold bounds what waits to be told. It is beyond what ports may have learnt, so that a store that is slow loses nothing.
	maxUntold = 1 << 17
	// shareEvery and shareAtMost bound what one host writes: an entry that changes often is written once each time.
	shareEvery  = 50 * time.Millisecond
	shareAtMost = 64
)

func newSharer(a *Agent) *sharer {
	return &sharer{
		host: a.host.ID.String(), tables: a.tables, store: a.cfg.Shared, log: a.logs.For(logStore),
		wake: make(chan struct{}, 1), dirty: map[tag.Tag]struct{}{}, told: map[tag.Tag]state.Learnt{}, far: map[tag.Tag]bool{},
		changed: func(tags []tag.Tag) { a.changed(nil, tags) },
		wanted:  func() bool { return reachable(a.mirror.Snapshot()) },
	}
}

// note takes the tags of what has changed here. It is called by workers, and does not wait.
func (s *sharer) note(tags []tag.Tag) {
	for _, t := range tags {
		if t.Kind != tag.MACEntry && t.Kind != tag.Neighbour {
			continue
		}
		s.mu.Lock()
		if len(s.dirty) < maxUntold {
			s.dirty[t] = struct{}{}
		} else {
			s.lost++
		}
		s.mu.Unlock()
		s.signal()
	}
}

func (s *sharer) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// some takes up to n of what is to be told.
func (s *sharer) some(n int) (tags []tag.Tag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.dirty {
		if len(tags) == n {
			break
		}
		tags = append(tags, t)
		delete(s.dirty, t)
	}
	return tags
}

// learntValue is an entry's value in the store.
type learntValue struct {
	Host string `json:"host"`
	Port string `json:"port,omitempty"`
	MAC  string `json:"mac,omitempty"`
}

func learntText(host string, t tag.Tag, l state.Learnt) ([]byte, error) {
	v := learntValue{Host: host}
	if t.Kind == tag.MACEntry {
		v.Port = l.Port.String()
	} else {
		v.MAC = l.MAC.String()
	}
	return json.Marshal(v)
}

// tell writes what is noted, until ctx ends. When the session has ended, all is told anew.
func (s *sharer) tell(ctx context.Context) error {
	for {
		err := s.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.log.Warn("what is learnt here cannot be told to other hosts", "error", err)
		s.anew()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// anew has all told again.
func (s *sharer) anew() {
	for t := range s.told {
		s.note([]tag.Tag{t})
	}
	clear(s.told)
}

func (s *sharer) session(ctx context.Context) error {
	x, err := s.store.Join(ctx, live.TTL)
	if err != nil {
		return err
	}
	s.signal() // there may be what could not be told in an earlier one
	for {
		select {
		case <-s.wake:
		case <-x.Done():
			return errors.New("the session with the store has ended")
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.tellSome(ctx, x, s.some); err != nil {
			s.old = append(s.old, x) // its client may keep it alive, with what it has been told
			return err
		}
		s.endOld(ctx)
		if s.untold() {
			s.signal()
		}
		select {
		case <-time.After(shareEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endOld ends earlier sessions once all that is still known is told in the present one: what they alone have is out of date.
func (s *sharer) endOld(ctx context.Context) {
	if len(s.old) == 0 || s.untold() {
		return
	}
	for _, x := range s.old {
		_ = x.Close(ctx) // it is not kept alive any more, whatever the store says
	}
	s.old = nil
}

func (s *sharer) untold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dirty) > 0
}

// tellSome writes some of what is to be told.
func (s *sharer) tellSome(ctx context.Context, x store.Session, some func(n int) []tag.Tag) error {
	if !s.wanted() {
		return nil
	}
	s.mu.Lock()
	again := s.again
	s.again = nil
	s.mu.Unlock()
	for _, t := range again {
		delete(s.told, t)
	}
	s.note(again)
	tags := some(shareAtMost)
	for i, t := range tags {
		if err := s.write(ctx, x, t); err != nil {
			s.note(tags[i:])
			return err
		}
	}
	return nil
}

func (s *sharer) write(ctx context.Context, x store.Session, t tag.Tag) error {
	l, ok := s.tables.Learnt(t)
	was, told := s.told[t]
	switch {
	case ok && (!told || was != l):
		b, err := learntText(s.host, t, l)
		if err != nil {
			return err
		}
		s.told[t] = l
		return x.Put(ctx, learntPath(t), b)
	case !ok && told:
		delete(s.told, t)
		return x.Delete(ctx, learntPath(t))
	}
	return nil
}

const learntPrefix = "learnt/"

// learntPath is the entry's path: learnt/mac/BRIDGE/VLAN/MAC or learnt/neighbour/PORT-OR-BRIDGE[/VLAN]/ADDRESS.
func learntPath(t tag.Tag) string {
	if t.Kind == tag.MACEntry {
		return fmt.Sprintf("%smac/%s/%d/%s", learntPrefix, t.ID, t.VLAN, t.MAC)
	}
	if t.VLAN != 0 {
		return fmt.Sprintf("%sneighbour/%s/%d/%s", learntPrefix, t.ID, t.VLAN, t.Addr)
	}
	return fmt.Sprintf("%sneighbour/%s/%s", learntPrefix, t.ID, t.Addr)
}

// parseLearnt is the inverse of learntPath.
func parseLearnt(path string) (t tag.Tag, err error) {
	f := strings.Split(strings.TrimPrefix(path, learntPrefix), "/")
	bad := fmt.Errorf("no path of what is learnt: %q", path)
	if len(f) < 3 {
		return t, bad
	}
	if t.ID, err = uuid.Parse(f[1]); err != nil {
		return t, bad
	}
	switch {
	case f[0] == "mac" && len(f) == 4:
		t.Kind = tag.MACEntry
		vlan, err := strconv.ParseUint(f[2], 10, 12)
		mac, err2 := parseMAC(f[3])
		if errors.Join(err, err2) != nil {
			return t, bad
		}
		t.VLAN, t.MAC = uint16(vlan), mac
	case f[0] == "neighbour" && (len(f) == 3 || len(f) == 4):
		t.Kind = tag.Neighbour
		a, err := netip.ParseAddr(f[len(f)-1])
		if err != nil {
			return t, bad
		}
		if t.Addr = match.AddrFrom(a); len(f) == 4 {
			vlan, err := strconv.ParseUint(f[2], 10, 12)
			if err != nil {
				return t, bad
			}
			t.VLAN = uint16(vlan)
		}
	default:
		return t, bad
	}
	return t, nil
}

func parseMAC(s string) (match.MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return match.MAC{}, fmt.Errorf("no MAC address: %q", s)
	}
	return match.MAC(hw), nil
}

// hear takes over what other hosts have learnt, until ctx ends. While the store is away, the last stays.
func (s *sharer) hear(ctx context.Context) error {
	for {
		if err := s.follow(ctx); ctx.Err() == nil {
			s.log.Warn("what other hosts learn is not heard", "error", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *sharer) follow(ctx context.Context) error {
	events, err := s.store.WatchShared(ctx, learntPrefix)
	if err != nil {
		return err
	}
	h := s.hearing()
	for e := range events {
		h.take(e)
	}
	return store.ErrUnavailable
}

// hearing is one stream of what other hosts have learnt.
type hearing struct {
	*sharer
	before map[tag.Tag]bool // known from an earlier stream, and not told yet by this one
}

func (s *sharer) hearing() *hearing { return &hearing{s, maps.Clone(s.far)} }

func (h *hearing) take(e store.SharedEvent) {
	if e.Synced {
		for t := range h.before { // that went while nobody listened
			h.gone(t)
		}
		h.before = nil
		return
	}
	t, err := parseLearnt(e.Path)
	if err != nil {
		h.log.Warn("an entry in the store is not understood", "path", e.Path)
		return
	}
	delete(h.before, t)
	l, mine, err := h.value(e)
	switch {
	case e.Deleted:
		h.gone(t)
	case mine, err != nil:
		h.drop(t)
	default:
		h.setFar(t, true)
		if h.tables.SetFar(t, l) {
			h.changed([]tag.Tag{t})
		}
	}
}

// gone takes it that the store has no entry any more. What this host has told itself has been written over when another one has told the same: if it
// still knows it, it tells it again.
func (h *hearing) gone(t tag.Tag) {
	if _, known := h.tables.Learnt(t); known && h.far[t] {
		h.mu.Lock()
		h.again = append(h.again, t)
		h.mu.Unlock()
		h.signal()
	}
	h.drop(t)
}

// drop takes it that no other host knows of t.
func (h *hearing) drop(t tag.Tag) {
	h.setFar(t, false)
	if h.tables.DropFar(t) {
		h.changed([]tag.Tag{t})
	}
}

// setFar notes whether any other host knows of t.
func (s *sharer) setFar(t tag.Tag, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard++
	if known {
		s.far[t] = true
	} else {
		delete(s.far, t)
	}
}

// heardUntil counts what has been heard: while it is the same, so is keep's answer.
func (s *sharer) heardUntil() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

// keep is what other hosts have learnt, as entries of the store.
func (s *sharer) keep() (map[string]string, error) {
	s.mu.Lock()
	tags := slices.Collect(maps.Keys(s.far))
	s.mu.Unlock()
	kept := make(map[string]string, len(tags))
	for _, t := range tags {
		if l, ok := s.tables.Far(t); ok {
			b, err := learntText("", t, l)
			if err != nil {
				return nil, err
			}
			kept[learntPath(t)] = string(b)
		}
	}
	return kept, nil
}

// restore takes over what was kept, until the store is heard. Call it before hear.
func (s *sharer) restore(kept map[string]string) {
	for path, text := range kept {
		t, err := parseLearnt(path)
		l, _, err2 := s.value(store.SharedEvent{Path: path, Value: []byte(text)})
		if err := errors.Join(err, err2); err != nil {
			s.log.Warn("what was kept of another host's addresses is not understood", "path", path, "error", err)
			continue
		}
		s.setFar(t, true)
		s.tables.SetFar(t, l)
	}
}

// value reads what another host has written; mine: this one has.
func (s *sharer) value(e store.SharedEvent) (l state.Learnt, mine bool, err error) {
	if e.Deleted {
		return l, false, nil
	}
	var v learntValue
	if err := json.Unmarshal(e.Value, &v); err != nil {
		return l, false, err
	}
	if v.Host == s.host {
		return l, true, nil
	}
	if v.Port != "" {
		l.Port, err = uuid.Parse(v.Port)
	} else {
		l.MAC, err = parseMAC(v.MAC)
	}
	return l, false, err
}
