package native

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// maxTransaction bounds the body of a transaction, in bytes: about that of 10,000 ports.
const maxTransaction = 8 << 20

type txnInput struct {
	Body wire.Transaction
}

type txnOutput struct {
	Body wire.Committed
}

func registerTransactions(api huma.API, s store.Store) {
	huma.Register(api, huma.Operation{
		OperationID: "commit-transaction", Summary: "Change several objects, all or none",
		Description: "Operations may refer to each other's objects in any order: choose the ids of what is created.",
		Tags:        []string{"changes"}, Method: http.MethodPost, Path: "/v1/transactions",
		MaxBodyBytes: maxTransaction, Responses: problemResponses(api, 404, 409, 422, 503),
	}, func(ctx context.Context, in *txnInput) (*txnOutput, error) { return commit(ctx, s, in.Body.Ops) })
}

func commit(ctx context.Context, s store.Store, in []wire.Op) (*txnOutput, error) {
	ops := make([]store.Op, len(in))
	at := place{body: true, at: make(map[model.Key]string, len(in))}
	for i, w := range in {
		op, path, p := storeOp(w, fmt.Sprintf("ops[%d]", i))
		if p != nil {
			return nil, p
		}
		ops[i] = op
		at.at[model.KeyOf(op.Object)] = path
	}
	rev, err := s.Txn(ctx, ops...)
	if err != nil {
		return nil, problem(err, at)
	}
	out := &txnOutput{Body: wire.Committed{Revision: rev, Objects: []*wire.Any{}}}
	for _, op := range ops {
		if op.Verb != store.Delete {
			out.Body.Objects = append(out.Body.Objects, wire.Wrap(wire.FromModel(op.Object)))
		}
	}
	return out, nil
}

// storeOp converts one operation and returns the path of its object in the body.
func storeOp(w wire.Op, path string) (store.Op, string, *problemBody) {
	op := store.Op{IfRevision: w.IfRevision}
	switch {
	case w.Delete != nil && w.Create == nil && w.Replace == nil:
		id, err := wire.ParseID(w.Delete.ID)
		if err != nil {
			return op, "", invalid("body."+path+".delete.id", err.Error())
		}
		op.Verb, op.Object = store.Delete, model.New(w.Delete.Kind)
		op.Object.GetMeta().ID = id
		return op, path + ".delete", nil
	case w.Create != nil && w.Replace == nil && w.Delete == nil:
		op.Verb = store.Create
		return convert(op, w.Create, path+".create")
	case w.Replace != nil && w.Create == nil && w.Delete == nil:
		op.Verb = store.Replace
		return convert(op, w.Replace, path+".replace")
	}
	return op, "", invalid("body."+path, "exactly one of create, replace, delete must be given")
}

func convert(op store.Op, a *wire.Any, path string) (store.Op, string, *problemBody) {
	w, err := a.Object()
	if err != nil {
		return op, "", invalid("body."+path, err.Error())
	}
	path += "." + string(w.Kind())
	op.Object, err = w.Model()
	if err != nil {
		return op, "", problem(err, body(path))
	}
	if m := op.Object.GetMeta(); m.ID == uuid.Nil {
		if op.Verb != store.Create {
			return op, "", invalid("body."+path+".id", "the id of the object to replace is missing")
		}
		m.ID = uuid.New()
	}
	return op, path, nil
}
