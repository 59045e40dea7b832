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
