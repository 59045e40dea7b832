package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/viaduct-net/viaduct/internal/api/wire"
)

// ConfSchema lists the configuration's keys.
func (c *Client) ConfSchema(ctx context.Context) (s wire.ConfSchema, err error) {
	return s, c.call(ctx, http.MethodGet, "/v1/conf/schema", nil, &s)
}

// ConfTemplates lists the templates.
func (c *Client) ConfTemplates(ctx context.Context) (t wire.ConfTemplates, err error) {
	return t, c.call(ctx, http.MethodGet, "/v1/conf/templates", nil, &t)
}

// ConfHosts lists what is set for hosts and what their agents report.
func (c *Client) ConfHosts(ctx context.Context) (h wire.ConfHosts, err error) {
	return h, c.call(ctx, http.MethodGet, "/v1/conf/hosts", nil, &h)
}

// ConfEffective is what counts on a host, by id, or else on one that has only a template; neither: the template default.
func (c *Client) ConfEffective(ctx context.Context, host, template string) (e wire.ConfEffective, err error) {
	q := url.Values{}
	if host != "" {
		q.Set("host", host)
	}
	if template != "" {
		q.Set("template", template)
	}
	return e, c.call(ctx, http.MethodGet, "/v1/conf/effective?"+q.Encode(), nil, &e)
}

// ConfChange makes all changes or none.
func (c *Client) ConfChange(ctx context.Context, changes ...wire.ConfChange) (r wire.ConfCommitted, err error) {
	return r, c.call(ctx, http.MethodPost, "/v1/conf/changes", wire.ConfChanges{Changes: changes}, &r)
}
