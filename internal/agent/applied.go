package agent

import (
	"context"
	"time"

	"github.com/viaduct-net/viaduct/internal/topo/applied"
)

// reportApplied says, when somebody asks, when this host has applied what there was at a revision: the workers decide by it.
func (a *Agent) reportApplied(ctx context.Context) error {
	values := make(chan string, 1)
	ended := make(chan error, 1)
	go func() { ended <- a.cfg.Keys.Announce(ctx, applied.Key(a.host.ID), values) }()
	values <- applied.Text(0)
	for reported := int64(0); ctx.Err() == nil; {
		if err := a.answerAsked(ctx, &reported, values); err != nil && ctx.Err() == nil {
			select {
			case <-time.After(time.Second): // the store is away
			case <-ctx.Done():
			}
		}
	}
	<-ended
	return ctx.Err()
}

// answerAsked does so until the stream of questions breaks.
func (a *Agent) answerAsked(ctx context.Context, reported *int64, values chan string) error {
	news, err := a.cfg.Keys.WatchKeys(ctx, applied.AskedKey)
	if err != nil {
		return err
	}
	for range news {
		asked, _, err := applied.Asked(ctx, a.cfg.Keys)
		if err != nil {
			return err
		}
		if asked <= *reported {
			continue
		}
		has, err := a.apply(ctx, asked)
		if err != nil {
			return err
		}
		*reported = has
		replace(values, applied.Text(has))
	}
	return nil
}

// appliedEvery is how often the mirror is looked at while somebody waits for it.
const appliedEvery = 10 * time.Millisecond

// apply waits until the workers have what there was at a revision, and says which they have.
func (a *Agent) apply(ctx context.Context, revision int64) (has int64, err error) {
	for has = a.mirror.Told(); has < revision; has = a.mirror.Told() {
		a.mirror.Hurry()
		select {
		case <-time.After(appliedEvery):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	for _, w := range a.workers { // what the mirror has told them comes before this
		if err := a.call(w, ctx, func() {}); err != nil {
			return 0, err
		}
	}
	return has, nil
}
