package main

import (
	"slices"
	"testing"
)

func TestPMDStats(t *testing.T) {
	const text = `pmd thread numa_id 0 core_id 1:
  packets received: 0
  packet recirculations: 0
  avg. datapath passes per packet: 0.00
  miss with success upcall: 0
  miss with failed upcall: 0
main thread:
  packets received: 1000
  packet recirculations: 2000
  emc hits: 17
  megaflow hits: 1980
  avg. subtable lookups per megaflow hit: 1.20
  miss with success upcall: 1001
  miss with failed upcall: 2
  avg. packets per output batch: 1.10
`
	n, threads, err := pmdStats(text)
	if want := (upcallCount{frames: 1000, upcalls: 1003}); n != want || err != nil || !slices.Equal(threads, []string{"main thread"}) {
		t.Errorf("%+v of %v, %v", n, threads, err)
	}
	for _, bad := range []string{"", "  packets received: 5\n", "main thread:\n  packets received: many\n"} {
		if n, _, err := pmdStats(bad); err == nil {
			t.Errorf("%q: %+v and no error", bad, n)
		}
	}
}
