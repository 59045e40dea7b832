package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
)

// What may be wrong with a host while its agent goes on. The metric viaduct_agent_trouble has these as labels.
const (
	troubleTopology    = "topology_not_kept"    // a start without the store would begin with an old network, or none
	troubleConnections = "connections_not_kept" // silent connections would not survive the agent
	troubleDatapath    = "datapath_damaged"     // a part of it was taken away, and cannot be put back
	troubleMemory      = "memory_short"         // the agent needs more than it is allowed
	troubleTables      = "tables_in_heap"       // new flows may wait for the garbage collector
	troubleName        = "host_name_taken"      // another machine is this host, or would be
)

var allTroubles = []string{troubleConnections, troubleDatapath, troubleMemory, troubleName, troubleTables, troubleTopology}

// troubles are what is wrong now. Each is logged once when it begins and once when it is over, however often it is met meanwhile. Safe for
// concurrent use.
type troubles struct {
	log    *slog.Logger
	events *events

	mu    sync.Mutex
	now   map[string]error
	began map[string]uint64 // how often
}

func newTroubles(log *slog.Logger, e *events) *troubles {
	return &troubles{log: log, events: e, now: make(map[string]error), began: make(map[string]uint64)}
}

// set says how a thing is: nil, well. means is what the trouble means for the host, in words.
func (t *troubles) set(what, means string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, was := t.now[what]
	switch {
	case err != nil:
		t.now[what] = fmt.Errorf("%s: %w", means, err)
		if was {
			return
		}
		t.began[what]++
		t.events.add(debug.EventTrouble, what, "%s: %v", means, err)
		t.log.Warn(means, "trouble", what, "error", err)
	case was:
		delete(t.now, what)
		t.events.add(debug.EventMended, what, "over: %s", means)
		t.log.Info("a trouble is over", "trouble", what)
	}
}

// list has all kinds, nil for those that there are not now.
func (t *troubles) list() map[string]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := make(map[string]error, len(allTroubles))
	for _, what := range allTroubles {
		m[what] = t.now[what]
	}
	return m
}

// texts are those that there are now, ordered.
func (t *troubles) texts() (list []string) {
	for what, err := range t.list() {
		if err != nil {
			list = append(list, what+": "+err.Error())
		}
	}
	slices.Sort(list)
	return list
}

// begun is how often each has begun.
func (t *troubles) begun(what string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.began[what]
}

// cure adds to an error of writing in dir what is to be done about it.
func cure(dir string, err error) error {
	var advice string
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		advice = "make room there: df -h " + dir + "; df -i " + dir
	case errors.Is(err, unix.EROFS):
		advice = "mount its file system writable: findmnt -T " + dir + "; dmesg tells whether the disk has failed"
	case errors.Is(err, os.ErrPermission):
		advice = "the agent must be able to write there: ls -ld " + dir
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, os.ErrExist):
		advice = "it must be a directory: ls -ld " + dir
	case errors.Is(err, unix.EIO):
		advice = "the disk fails: dmesg"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, advice)
}

// setAside gives a file that cannot be used another name, so that it can be looked at and is in nobody's way. One is kept of each.
func setAside(path string) string {
	bad := path + ".bad"
	if err := os.Rename(path, bad); err != nil {
		return "it cannot be set aside: " + strings.TrimPrefix(err.Error(), "rename ")
	}
	return "set aside as " + bad
}
