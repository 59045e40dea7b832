package main

import (
	"math"
	"testing"
)

func TestJain(t *testing.T) {
	for _, c := range []struct {
		x    []float64
		want float64
	}{{[]float64{3, 3, 3}, 1}, {[]float64{5, 0, 0, 0}, 0.25}, {[]float64{1, 2}, 0.9}} {
		if got := jain(c.x); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%v: %v, want %v", c.x, got, c.want)
		}
	}
}

// An agent that takes 2 us for each packet served, and half of a per cent of a core for 100,000 refused/s.
func TestRefuseCPU(t *testing.T) {
	cost := func(admitted, refused float64) float64 { return admitted*2e-6 + refused/100_000*0.005 }
	a, r := [2]float64{200_000, 220_000}, [2]float64{100_000, 600_000}
	got, ok := refuseCPU([2]float64{cost(a[0], r[0]), cost(a[1], r[1])}, a, r)
	if !ok || math.Abs(got-0.005) > 1e-9 {
		t.Errorf("%v %v", got, ok)
	}
	if _, ok := refuseCPU([2]float64{1, 1}, a, [2]float64{100_000, 110_000}); ok {
		t.Error("told from nothing")
	}
}
