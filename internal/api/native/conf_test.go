package native_test

import (
	"net/http/httptest"
	"testing"

	"github.com/viaduct-net/viaduct/internal/topo/store/mem"
)

func TestConf(t *testing.T) {
	onStores(t, func(t *testing.T, srv *httptest.Server) {
		do(t, srv, "POST", "/v1/hosts", `{"name":"h1","id":"`+blueID+`"}`).want(t, 201)
		do(t, srv, "GET", "/v1/conf/schema", "").want(t, 200, `{"key":"agent.datapath.vm_incoming_burst_capacity","type":"integer","default":32,"unit":"tokens","range":"0 to 1048576","restart":false,`)
		do(t, srv, "GET", "/v1/conf/templates", "").want(t, 200, `"templates":[]`)
		do(t, srv, "GET", "/v1/conf/hosts", "").want(t, 200, `"hosts":[{"id":"`+blueID+`","name":"h1","values":{}}]`)

		// Numbers and texts, a template that the same request makes, several layers: one transaction.
		do(t, srv, "POST", "/v1/conf/changes", `{"changes":[
			{"host":"`+blueID+`","assign":"edge","set":{"agent.datapath.max_flow_count":5000,"agent.datapath.driver":"ovs"}},
			{"template":"edge","set":{"agent.flow.idle_timeout":"90s","agent.datapath.max_flow_count":"7"}}]}`).
			want(t, 200, `"changed":true`, `"restart":["agent.datapath.driver"]`)
		do(t, srv, "GET", "/v1/conf/effective?host="+blueID, "").want(t, 200,
			`{"key":"agent.datapath.max_flow_count","value":5000,"source":"host"}`,
			`{"key":"agent.flow.idle_timeout","value":"1m30s","source":"template edge"}`,
			`{"key":"agent.datapath.driver","value":"ovs","source":"host","restart":true}`,
			`{"key":"agent.datapath.vm_incoming_burst_capacity","value":32,"source":"schema"}`)
		do(t, srv, "GET", "/v1/conf/effective?template=edge", "").want(t, 200, `"agent.datapath.max_flow_count","value":7,`)
		do(t, srv, "GET", "/v1/conf/effective", "").want(t, 200, `"agent.datapath.max_flow_count","value":200000,"source":"schema"`)
		do(t, srv, "GET", "/v1/conf/hosts", "").want(t, 200, `"template":"edge"`, `"values":{"agent.datapath.driver":"ovs","agent.datapath.max_flow_count":5000}`)
		do(t, srv, "GET", "/v1/conf/templates", "").want(t, 200, `{"name":"edge","values":{"agent.datapath.max_flow_count":7,"agent.flow.idle_timeout":"1m30s"},"hosts":1}`)

		before := do(t, srv, "GET", "/v1/conf/effective?host="+blueID, "").text
		refused := func(status int, changes string, parts ...string) {
			t.Helper()
			do(t, srv, "POST", "/v1/conf/changes", `{"changes":[{"template":"edge","set":{"agent.datapath.max_flow_count":8}},`+changes+`]}`).want(t, status, parts...)
		}
		refused(404, `{"template":"edge","set":{"agent.nosuch":1}}`, ":not-found", `no key \"agent.nosuch\"`, "viaduct conf schema")
		refused(422, `{"template":"edge","set":{"agent.datapath.max_flow_count":1.5,"agent.datapath.driver":"x"}}`, ":invalid", `driver: value \"x\"`, `; agent.datapath.max_flow_count: value \"1.5\": want an integer`)
		refused(422, `{"template":"edge","set":{"agent.datapath.max_flow_count":[1]}}`, "want a number or text", "body.changes[1].set.agent.datapath.max_flow_count")
		refused(404, `{"host":"`+portID+`","set":{"agent.datapath.max_flow_count":9}}`, "host "+portID)
		refused(422, `{"host":"h1"}`, "body.changes[1].host")
		refused(422, `{"host":"`+blueID+`","template":"edge"}`, "either a template or a host")
		refused(409, `{"template":"edge","delete":true}`, ":referenced")
		refused(422, `{"template":"edge","sett":{}}`, "sett")
		do(t, srv, "POST", "/v1/conf/changes", `{"changes":[]}`).want(t, 422)
		do(t, srv, "GET", "/v1/conf/effective?host="+portID, "").want(t, 404)
		do(t, srv, "GET", "/v1/conf/effective?template=none", "").want(t, 404, `no template \"none\"`)
		do(t, srv, "GET", "/v1/conf/effective?template=edge&host="+blueID, "").want(t, 422)
		if after := do(t, srv, "GET", "/v1/conf/effective?host="+blueID, "").text; after != before {
			t.Errorf("a refused change has changed:\n%s\nwas\n%s", after, before)
		}
	})
}

func TestConfWithoutStore(t *testing.T) {
	s := mem.New()
	srv := newServer(t, s)
	s.Disconnect()
	for _, path := range []string{"templates", "hosts", "effective"} {
		do(t, srv, "GET", "/v1/conf/"+path, "").want(t, 503, ":unavailable")
	}
	do(t, srv, "POST", "/v1/conf/changes", `{"changes":[{"template":"a"}]}`).want(t, 503, ":unavailable")
}
