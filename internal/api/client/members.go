package client

import (
	"context"
	"net/http"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// MemberStatus is what hosts have found out about pool members.
func (c *Client) MemberStatus(ctx context.Context) (s wire.MemberStatuses, err error) {
	return s, c.call(ctx, http.MethodGet, "/v1/"+wire.Plural(model.KindPoolMember)+"/status", nil, &s)
}
