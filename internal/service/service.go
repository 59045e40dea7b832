// Package service tells the service manager (systemd, sd_notify(3)) how a daemon is. Without a service manager its functions
// do nothing.
package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that start-up is over, with a line of what the daemon does now.
func Ready(log *slog.Logger, status string) {
	notify(log, daemon.SdNotifyReady+"\nSTATUS="+status)
}

// Status is a line of what the daemon does now.
func Status(log *slog.Logger, status string) { notify(log, "STATUS="+status) }

// Stopping says that the daemon ends on purpose.
func Stopping(log *slog.Logger) { notify(log, daemon.SdNotifyStopping) }

// Watch pats the watchdog twice in each interval that the service manager has set, as long as healthy returns nil. A call of
// healthy that takes longer than an interval is a failed one, too: then the service manager ends the daemon and starts another.
// Watch returns when ctx ends, or at once when no watchdog is set.
func Watch(ctx context.Context, log *slog.Logger, healthy func(context.Context) error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("service manager's watchdog", "error", err)
		return
	}
	if interval > 0 {
		watch(ctx, log, interval, healthy)
	}
}

func watch(ctx context.Context, log *slog.Logger, interval time.Duration, healthy func(context.Context) error) {
	t := time.NewTicker(interval / 2)
	defer t.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, interval)
		err := healthy(bounded)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("not healthy", "error", err, "watchdog", interval)
		default:
			notify(log, daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("service manager not notified", "error", err)
	}
}
