package client

import (
	"context"
	"net/http"

	"github.com/viaduct-net/viaduct/internal/api/wire"
)

// Applied asks how many hosts have applied what there was at a revision.
func (c *Client) Applied(ctx context.Context, revision int64) (a wire.Applied, err error) {
	return a, c.call(ctx, http.MethodPost, "/v1/applied", wire.AppliedQuestion{Revision: revision}, &a)
}
