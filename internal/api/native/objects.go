package native

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// object is a pointer to W that is a wire.Object.
type object[W any] interface {
	*W
	wire.Object
}

type createInput[W any] struct {
	Body W
}

type idInput struct {
	ID string `path:"id" format:"uuid" doc:"Identifier of the object."`
}

type listInput struct {
	Name string `query:"name" doc:"Only the object of this name."`
}

type replaceInput[W any] struct {
	ID      string `path:"id" format:"uuid" doc:"Identifier of the object."`
	IfMatch string `header:"If-Match" doc:"ETag that the object must still have; else 412."`
	Body    W
}

type deleteInput struct {
	ID      string `path:"id" format:"uuid" doc:"Identifier of the object."`
	IfMatch string `header:"If-Match" doc:"ETag that the object must still have; else 412."`
}

type objectOutput[W any] struct {
	ETag string `header:"ETag" doc:"Revision of the object, for If-Match."`
	Body *W
}

type createOutput[W any] struct {
	ETag     string `header:"ETag" doc:"Revision of the object, for If-Match."`
	Location string `header:"Location" doc:"Path of the object."`
	Body     *W
}

type listOutput[W any] struct {
	Body wire.List[*W]
}

// collection serves the objects of one kind.
type collection[W any, P object[W]] struct {
	store store.Store
	kind  model.Kind
	path  string
}

func registerKind[W any, P object[W]](api huma.API, s store.Store) {
	kind := P(new(W)).Kind()
	c := &collection[W, P]{store: s, kind: kind, path: "/v1/" + wire.Plural(kind)}
	op := func(verb, method, path string, errors ...int) huma.Operation {
		return huma.Operation{
			OperationID: verb + "-" + string(kind), Summary: sentence(verb, kind), Tags: []string{wire.Plural(kind)},
			Method: method, Path: path, Responses: problemResponses(api, errors...),
		}
	}
	one := c.path + "/{id}"
	create := op("create", http.MethodPost, c.path, 409, 422, 503)
	create.DefaultStatus = http.StatusCreated
	huma.Register(api, create, c.create)
	huma.Register(api, op("list", http.MethodGet, c.path, 422, 503), c.list)
	huma.Register(api, op("get", http.MethodGet, one, 404, 422, 503), c.get)
	huma.Register(api, op("replace", http.MethodPut, one, 404, 409, 412, 422, 503), c.replace)
	huma.Register(api, op("delete", http.MethodDelete, one, 404, 409, 412, 422, 503), c.delete)
}

func sentence(verb string, kind model.Kind) string {
	what := "a " + string(kind)
	switch {
	case verb == "list":
		what = wire.Plural(kind)
	case strings.HasPrefix(what, "a a"):
		what = "an " + string(kind)
	}
	return strings.ToUpper(verb[:1]) + verb[1:] + " " + strings.ReplaceAll(what, "_", " ")
}

func (c *collection[W, P]) create(ctx context.Context, in *createInput[W]) (*createOutput[W], error) {
	at := body("")
	o, err := P(&in.Body).Model()
	if err != nil {
		return nil, problem(err, at)
	}
	if m := o.GetMeta(); m.ID == uuid.Nil {
		m.ID = uuid.New()
	}
	if _, err := c.store.Txn(ctx, store.Op{Verb: store.Create, Object: o}); err != nil {
		return nil, problem(err, at.of(o))
	}
	w := c.wire(o)
	return &createOutput[W]{ETag: etag(o), Location: c.path + "/" + o.GetMeta().ID.String(), Body: w}, nil
}

func (c *collection[W, P]) list(ctx context.Context, in *listInput) (*listOutput[W], error) {
	objects, rev, err := c.store.List(ctx, c.kind)
	if err != nil {
		return nil, problem(err, nowhere)
	}
	out := &listOutput[W]{Body: wire.List[*W]{Revision: rev, Items: []*W{}}}
	for _, o := range objects {
		if in.Name == "" || in.Name == o.GetMeta().Name {
			out.Body.Items = append(out.Body.Items, c.wire(o))
		}
	}
	return out, nil
}

func (c *collection[W, P]) get(ctx context.Context, in *idInput) (*objectOutput[W], error) {
	id, err := pathID(in.ID)
	if err != nil {
		return nil, err
	}
	o, err := c.store.Get(ctx, c.kind, id)
	if err != nil {
		return nil, problem(err, nowhere)
	}
	return &objectOutput[W]{ETag: etag(o), Body: c.wire(o)}, nil
}

func (c *collection[W, P]) replace(ctx context.Context, in *replaceInput[W]) (*objectOutput[W], error) {
	id, err := pathID(in.ID)
	if err != nil {
		return nil, err
	}
	rev, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	w := P(&in.Body)
	if m := w.GetMeta(); m.ID == "" {
		m.ID = in.ID
	}
	at := body("")
	o, err := w.Model()
	if err != nil {
		return nil, problem(err, at)
	}
	if o.GetMeta().ID != id {
		return nil, invalid("body.id", fmt.Sprintf("%q is not the id in the path: leave it out", w.GetMeta().ID))
	}
	if _, err := c.store.Txn(ctx, store.Op{Verb: store.Replace, Object: o, IfRevision: rev}); err != nil {
		return nil, precondition(problem(err, at.of(o)), rev)
	}
	return &objectOutput[W]{ETag: etag(o), Body: c.wire(o)}, nil
}

func (c *collection[W, P]) delete(ctx context.Context, in *deleteInput) (*struct{}, error) {
	id, err := pathID(in.ID)
	if err != nil {
		return nil, err
	}
	rev, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	o := model.New(c.kind)
	o.GetMeta().ID = id
	if _, err := c.store.Txn(ctx, store.Op{Verb: store.Delete, Object: o, IfRevision: rev}); err != nil {
		return nil, precondition(problem(err, nowhere), rev)
	}
	return nil, nil
}

func (c *collection[W, P]) wire(o model.Object) *W { return wire.FromModel(o).(P) }

func pathID(s string) (uuid.UUID, error) {
	id, err := wire.ParseID(s)
	if err != nil {
		return id, invalid("path.id", err.Error())
	}
	return id, nil
}

// etag is the revision as a strong entity tag (RFC 9110 section 8.8.3).
func etag(o model.Object) string { return strconv.Quote(strconv.FormatInt(o.GetMeta().Revision, 10)) }

// ifMatch reads one of our entity tags; 0 when there is none, or for "*".
func ifMatch(s string) (int64, error) {
	if s == "" || s == "*" {
		return 0, nil
	}
	if t, err := strconv.Unquote(s); err == nil && s[0] == '"' {
		if rev, err := strconv.ParseInt(t, 10, 64); err == nil && rev > 0 {
			return rev, nil
		}
	}
	return 0, invalid("header.If-Match", fmt.Sprintf("%s is not an entity tag that this server gave, such as \"7\"", s))
}
