package impair

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRules(t *testing.T) {
	got := rules([]Way{
		{From: "host0", To: "host1", Cut: true, Loss: 1},
		{From: "host0", To: "store", Delay: time.Millisecond},
		{From: "host1", To: "store", Loss: 0.05, Delay: 20 * time.Millisecond},
	})
	const want = `table bridge faults
delete table bridge faults
table bridge faults {
	chain forward {
		type filter hook forward priority filter;
		iifname "host0" oifname "host1" counter drop
		iifname "host0" oifname "store" meta priority set 1:1
		iifname "host1" oifname "store" numgen random mod 100000 < 5000 counter drop
		iifname "host1" oifname "store" meta priority set 1:2
	}
}
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
