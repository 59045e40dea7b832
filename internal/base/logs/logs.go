// Package logs gives each subsystem a logger whose level changes while the process runs.
package logs

import (
	"context"
	"log/slog"
	"math"
	"sync"
)

// Off is above all levels.
const Off = slog.Level(math.MaxInt32)

// Logs makes loggers. Safe for concurrent use.
type Logs struct {
	handler slog.Handler

	mu     sync.Mutex
	root   slog.Level
	own    map[string]slog.Level // of the subsystems that do not have root's
	levels map[string]*slog.LevelVar
}

// New has all subsystems log to h at a level; h's own level is not asked.
func New(h slog.Handler, level slog.Level) *Logs {
	return &Logs{handler: h, root: level, levels: make(map[string]*slog.LevelVar)}
}

// Discard logs nothing.
func Discard() *Logs { return New(slog.DiscardHandler, Off) }

// For is the logger of a subsystem, whose name its lines carry; "" is that of the process.
func (l *Logs) For(subsystem string) *slog.Logger {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.levels[subsystem]
	if v == nil {
		v = new(slog.LevelVar)
		v.Set(l.level(subsystem))
		l.levels[subsystem] = v
	}
	log := slog.New(leveled{l.handler, v})
	if subsystem != "" {
		log = log.With("subsystem", subsystem)
	}
	return log
}

// SetLevels changes the level of all subsystems: root's, but for those in own.
func (l *Logs) SetLevels(root slog.Level, own map[string]slog.Level) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.root, l.own = root, own
	for name, v := range l.levels {
		v.Set(l.level(name))
	}
}

func (l *Logs) level(subsystem string) slog.Level {
	if v, ok := l.own[subsystem]; ok {
		return v
	}
	return l.root
}

// leveled asks a level of its own what is logged.
type leveled struct {
	slog.Handler
	level *slog.LevelVar
}

func (h leveled) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level.Level() }

func (h leveled) WithAttrs(as []slog.Attr) slog.Handler {
	return leveled{h.Handler.WithAttrs(as), h.level}
}

func (h leveled) WithGroup(name string) slog.Handler {
	return leveled{h.Handler.WithGroup(name), h.level}
}
