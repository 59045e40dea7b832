package agent

import (
	"context"
	"errors"
	"time"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// mendEvery is how often the agent looks whether somebody has taken parts of the datapath away.
const mendEvery = 5 * time.Second

// mend puts back what others take away, until ctx ends.
func (a *Agent) mend(ctx context.Context) error {
	dp, ok := a.dp.(datapath.Mender)
	if !ok {
		return nil
	}
	t := time.NewTicker(mendEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		a.mendOnce(dp)
	}
}

func (a *Agent) mendOnce(dp datapath.Mender) {
	mended, err := dp.Mend()
	if errors.Is(err, datapath.ErrClosed) {
		return
	}
	for _, what := range mended {
		a.mended.Add(1)
		a.events.add(debug.EventMended, troubleDatapath, "somebody has taken away %s: it is put back", what)
		a.log.Warn("somebody has taken a part of the datapath away: it is put back", "what", what)
	}
	a.troubles.set(troubleDatapath, "a part of the datapath is missing and cannot be put back: packets may be lost, now or when the agent ends", err)
}
