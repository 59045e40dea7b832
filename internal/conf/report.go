package conf

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/store"
)

// Report is what a running agent says of its configuration.
type Report struct {
	Revision int64    `json:"revision"`          // what the store had then is applied, but for what is pending
	Pending  []string `json:"pending,omitempty"` // keys whose values apply when the agent is started again
	Problems []string `json:"problems,omitempty"`
}

const reportRoot = ".report/conf/"

// ReportKey is where the agent of a host announces (store.Keys) its report, in the form of Text.
func ReportKey(host uuid.UUID) string { return reportRoot + host.String() }

// Text is the report as the store has it.
func (r Report) Text() string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // it has nothing that JSON cannot hold
	}
	return string(text)
}

// Reports are those of all hosts whose agents run.
func Reports(ctx context.Context, k store.Keys) (map[uuid.UUID]Report, error) {
	all, _, err := k.ReadKeys(ctx, reportRoot)
	if err != nil {
		return nil, fmt.Errorf("reports: %w", err)
	}
	rs := make(map[uuid.UUID]Report, len(all))
	for key, text := range all {
		id, err := uuid.Parse(strings.TrimPrefix(key, reportRoot))
		if err != nil {
			continue
		}
		var r Report
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			r = Report{Problems: []string{"its report cannot be read: " + err.Error()}}
		}
		rs[id] = r
	}
	return rs, nil
}
