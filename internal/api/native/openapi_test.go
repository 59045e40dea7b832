package native_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/api/wire"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

// TestOpenAPI checks that the document is whole: all routes are in it, every reference leads somewhere,
// every operation and field says what it is.
func TestOpenAPI(t *testing.T) {
	srv := newServer(t, mem.New())
	doc := do(t, srv, "GET", "/openapi.json", "")
	doc.want(t, 200)
	do(t, srv, "GET", "/openapi.yaml", "").want(t, 200, "openapi: 3.1.0")
	if v := doc.body["openapi"]; v != "3.1.0" {
		t.Errorf("version %v", v)
	}
	var tags []string
	for _, tag := range doc.body["tags"].([]any) {
		tags = append(tags, tag.(map[string]any)["name"].(string))
	}

	paths := doc.body["paths"].(map[string]any)
	want := map[string][]string{
		"/v1/transactions": {"post"}, "/v1/watch": {"get"}, "/livez": {"get"}, "/readyz": {"get"}, "/version": {"get"}, "/v1/whoami": {"get"}, "/v1/pool_members/status": {"get"}, "/v1/applied": {"post"},
		"/v1/conf/schema": {"get"}, "/v1/conf/templates": {"get"}, "/v1/conf/hosts": {"get"}, "/v1/conf/effective": {"get"}, "/v1/conf/changes": {"post"},
	}
	for _, k := range model.Kinds {
		want["/v1/"+wire.Plural(k)] = []string{"get", "post"}
		want["/v1/"+wire.Plural(k)+"/{id}"] = []string{"delete", "get", "put"}
	}
	if len(paths) != len(want) {
		t.Errorf("%d paths, want %d", len(paths), len(want))
	}
	ids := make(map[string]bool)
	for path, methods := range want {
		item, _ := paths[path].(map[string]any)
		if len(item) != len(methods) {
			t.Errorf("%s has %d methods, want %v", path, len(item), methods)
		}
		for _, m := range methods {
			op, ok := item[m].(map[string]any)
			if !ok {
				t.Errorf("no %s %s", m, path)
				continue
			}
			checkOperation(t, m+" "+path, op, tags)
			id := op["operationId"].(string)
			if ids[id] {
				t.Errorf("operationId %s twice", id)
			}
			ids[id] = true
		}
	}
	checkReferences(t, doc.body, doc.body)
	schemas := doc.body["components"].(map[string]any)["schemas"].(map[string]any)
	for _, name := range []string{"Bridge", "Router", "Port", "Route", "Host", "Binding", "FloatingIP"} {
		checkSchema(t, name, schemas[name].(map[string]any))
	}
}

func checkOperation(t *testing.T, name string, op map[string]any, tags []string) {
	t.Helper()
	if op["summary"] == nil || op["operationId"] == nil {
		t.Errorf("%s has no summary or operationId", name)
	}
	for _, tag := range op["tags"].([]any) {
		if !slices.Contains(tags, tag.(string)) {
			t.Errorf("%s: tag %v is not declared", name, tag)
		}
	}
	responses := op["responses"].(map[string]any)
	success := false
	for code, r := range responses {
		content, _ := r.(map[string]any)["content"].(map[string]any)
		if strings.HasPrefix(code, "2") {
			success = true
		} else if content["application/problem+json"] == nil {
			t.Errorf("%s: response %s is not a problem", name, code)
		}
	}
	if !success || responses["default"] == nil {
		t.Errorf("%s: responses %v", name, responses)
	}
}

// checkReferences follows every $ref inside v.
func checkReferences(t *testing.T, doc map[string]any, v any) {
	switch v := v.(type) {
	case map[string]any:
		if s, ok := v["$ref"].(string); ok {
			var at any = doc
			for _, part := range strings.Split(strings.TrimPrefix(s, "#/"), "/") {
				m, _ := at.(map[string]any)
				at = m[part]
			}
			if at == nil {
				t.Errorf("%s leads nowhere", s)
			}
		}
		for _, x := range v {
			checkReferences(t, doc, x)
		}
	case []any:
		for _, x := range v {
			checkReferences(t, doc, x)
		}
	}
}

// checkSchema wants every field described and no others taken.
func checkSchema(t *testing.T, name string, s map[string]any) {
	t.Helper()
	if s["additionalProperties"] != false {
		t.Errorf("%s takes unknown fields", name)
	}
	props := s["properties"].(map[string]any)
	for _, common := range []string{"id", "name", "revision"} {
		if props[common] == nil {
			t.Errorf("%s has no %s", name, common)
		}
	}
	for field, p := range props {
		if p.(map[string]any)["description"] == nil {
			t.Errorf("%s.%s is not described", name, field)
		}
	}
}
