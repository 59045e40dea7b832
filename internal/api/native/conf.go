package native

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// maxConfChanges bounds the body of a change of the configuration, in bytes: about that of 10,000 hosts.
const maxConfChanges = 8 << 20

type confOutput[T any] struct{ Body T }

type confScope struct {
	Host     string `query:"host" doc:"What counts on the host with this id."`
	Template string `query:"template" doc:"What counts on a host that has this template and nothing of its own; default: the template that all have."`
}

type confChangesInput struct{ Body wire.ConfChanges }

// configuration serves what operators set.
type configuration struct {
	keys  store.Keys
	store store.Store
}

func registerConf(api huma.API, c Config) {
	x := &configuration{c.Keys, c.Store}
	op := func(id, method, path, summary string, codes ...int) huma.Operation {
		return huma.Operation{OperationID: id, Summary: summary, Tags: []string{"configuration"}, Method: method, Path: "/v1/conf/" + path,
			Responses: problemResponses(api, codes...), MaxBodyBytes: maxConfChanges}
	}
	huma.Register(api, op("conf-schema", http.MethodGet, "schema", "All keys and what they mean"), x.schema)
	huma.Register(api, op("conf-templates", http.MethodGet, "templates", "All templates and their values", 503), x.templates)
	huma.Register(api, op("conf-hosts", http.MethodGet, "hosts", "What is set for each host, and what its agent reports", 503), x.hosts)
	huma.Register(api, op("conf-effective", http.MethodGet, "effective", "What counts on a host, and where it comes from", 404, 422, 503), x.effective)
	huma.Register(api, op("conf-change", http.MethodPost, "changes", "Change layers, all or none", 404, 409, 422, 503), x.change)
}

func (x *configuration) schema(context.Context, *struct{}) (*confOutput[wire.ConfSchema], error) {
	out := new(confOutput[wire.ConfSchema])
	for _, k := range conf.Schema() {
		out.Body.Keys = append(out.Body.Keys, wire.ConfKey{
			Key: k.Name, Type: k.Type(), Default: k.Plain(k.Default), Unit: k.Unit, Range: k.Range(), Restart: k.Restart, Text: k.Text,
		})
	}
	return out, nil
}

func (x *configuration) templates(ctx context.Context, _ *struct{}) (*confOutput[wire.ConfTemplates], error) {
	s, rev, err := conf.Load(ctx, x.keys)
	if err != nil {
		return nil, problem(err, nowhere)
	}
	out := &confOutput[wire.ConfTemplates]{wire.ConfTemplates{Revision: rev, Templates: []wire.ConfTemplate{}}}
	for _, name := range slices.Sorted(maps.Keys(s.Templates)) {
		t := wire.ConfTemplate{Name: name, Values: plain(s.Templates[name])}
		for _, h := range s.Hosts {
			if h.Template == name {
				t.Hosts++
			}
		}
		out.Body.Templates = append(out.Body.Templates, t)
	}
	return out, nil
}

// plain is a layer as JSON has it. What this version cannot use is there as text.
func plain(l conf.Layer) map[string]any {
	m := make(map[string]any, len(l))
	for name, text := range l {
		m[name] = text
		if k, err := conf.Find(name); err == nil {
			m[name] = k.Plain(text)
		}
	}
	return m
}

func (x *configuration) hosts(ctx context.Context, _ *struct{}) (*confOutput[wire.ConfHosts], error) {
	s, rev, err := conf.Load(ctx, x.keys)
	if err != nil {
		return nil, problem(err, nowhere)
	}
	reports, err := conf.Reports(ctx, x.keys)
	if err != nil {
		return nil, problem(err, nowhere)
	}
	hosts, _, err := x.store.List(ctx, model.KindHost)
	if err != nil {
		return nil, problem(err, nowhere)
	}
	out := &confOutput[wire.ConfHosts]{wire.ConfHosts{Revision: rev, Hosts: []wire.ConfHost{}}}
	for _, o := range hosts {
		m := o.GetMeta()
		h := wire.ConfHost{ID: m.ID.String(), Name: m.Name, Template: s.Hosts[m.ID].Template, Values: plain(s.Hosts[m.ID].Values)}
		if r, ok := reports[m.ID]; ok {
			h.Agent = &wire.ConfReport{Revision: r.Revision, Pending: r.Pending, Problems: r.Problems}
		}
		out.Body.Hosts = append(out.Body.Hosts, h)
	}
	return out, nil
}

func (x *configuration) effective(ctx context.Context, in *confScope) (*confOutput[wire.ConfEffective], error) {
	if in.Host != "" && in.Template != "" {
		return nil, invalid("query", "give host or template, not both")
	}
	s, rev, err := conf.Load(ctx, x.keys)
	if err != nil {
		return nil, problem(err, nowhere)
	}
	var r conf.Resolved
	if in.Host != "" {
		id, err := wire.ParseID(in.Host)
		if err != nil {
			return nil, invalid("query.host", err.Error())
		}
		if _, err := x.store.Get(ctx, model.KindHost, id); err != nil {
			return nil, problem(err, nowhere)
		}
		r = s.ForHost(id)
	} else if r, err = s.ForTemplate(cmp.Or(in.Template, conf.DefaultTemplate)); err != nil {
		return nil, problem(err, nowhere)
	}
	out := &confOutput[wire.ConfEffective]{wire.ConfEffective{Revision: rev}}
	for _, v := range r.Values {
		out.Body.Values = append(out.Body.Values, wire.ConfValue{
			Key: v.Key.Name, Value: v.Key.Plain(v.Text), Source: string(v.Source), Restart: v.Key.Restart,
		})
	}
	for _, err := range r.Ignored {
		out.Body.Ignored = append(out.Body.Ignored, err.Error())
	}
	return out, nil
}

func (x *configuration) change(ctx context.Context, in *confChangesInput) (*confOutput[wire.ConfCommitted], error) {
	changes := make([]conf.Change, len(in.Body.Changes))
	for i, w := range in.Body.Changes {
		c := conf.Change{Template: w.Template, Clear: w.Clear, Unset: w.Unset, Assign: w.Assign, Delete: w.Delete}
		if w.Host != "" {
			id, err := wire.ParseID(w.Host)
			if err != nil {
				return nil, invalid(fmt.Sprintf("body.changes[%d].host", i), err.Error())
			}
			c.Host = id
		}
		c.Set = make(map[string]string, len(w.Set))
		for k, v := range w.Set {
			text, ok := confText(v)
			if !ok {
				return nil, invalid(fmt.Sprintf("body.changes[%d].set.%s", i, k), fmt.Sprintf("%s: value %v: want a number or text", k, v))
			}
			c.Set[k] = text
		}
		changes[i] = c
	}
	u, err := conf.Update(ctx, x.keys, x.hostIDs, changes)
	if err != nil {
		return nil, confProblem(err)
	}
	out := &confOutput[wire.ConfCommitted]{wire.ConfCommitted{Revision: u.Revision, Changed: u.Changed}}
	for _, name := range u.Keys() {
		if k, err := conf.Find(name); err == nil && k.Restart {
			out.Body.Restart = append(out.Body.Restart, name)
		}
	}
	return out, nil
}

// confText is a JSON value as people would write it.
func confText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

func (x *configuration) hostIDs(ctx context.Context) (map[uuid.UUID]bool, error) {
	hosts, _, err := x.store.List(ctx, model.KindHost)
	if err != nil {
		return nil, err
	}
	ids := make(map[uuid.UUID]bool, len(hosts))
	for _, o := range hosts {
		ids[o.GetMeta().ID] = true
	}
	return ids, nil
}

// confProblem names everything that is wrong with a set of changes, not only what came first.
func confProblem(err error) *problemBody {
	p := problem(err, nowhere)
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) {
		p.Detail = strings.ReplaceAll(err.Error(), "\n", "; ")
		for _, one := range several.Unwrap() {
			p.Errors = append(p.Errors, &huma.ErrorDetail{Location: "body.changes", Message: one.Error()})
		}
	}
	switch p.Type {
	case wire.ProblemNotFound:
		p.Fix = "\"viaduct conf schema\" lists the keys, \"viaduct conf template list\" the templates"
	case wire.ProblemInvalid:
		p.Fix = "\"viaduct conf doc KEY\" says what a key takes"
	}
	return p
}
