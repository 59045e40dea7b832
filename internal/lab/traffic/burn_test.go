package traffic

import (
	"context"
	"testing"
	"time"
)

// A burner that never gets the time that it is due ends all the same.
func TestStarvedBurnerEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	asked := make(chan struct{}, 1)
	go func() {
		defer close(ended)
		burnThread(ctx, 1, func() time.Duration {
			select {
			case asked <- struct{}{}:
			default:
			}
			return 0
		})
	}()
	for range 3 { // it burns
		<-asked
	}
	cancel()
	<-ended
}
