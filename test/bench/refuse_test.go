package main

import (
	"math"
	"testing"
)

// What is refused costs nothing when each packet that is served costs the same, however many there are, and else the rest.
func TestRefusedCost(t *testing.T) {
	small := served{cpu: 0.8, admitted: 100_000, refused: 100_000}
	for _, c := range []struct {
		large served
		want  float64
	}{
		{served{0.8, 100_000, 400_000}, 0},
		{served{0.4, 50_000, 450_000}, 0},
		{served{0.8, 80_000, 420_000}, 0.5e-6}, // as busy, and serves less
		{served{0.83, 100_000, 400_000}, 0.1e-6},
	} {
		if got := refusedCost(small, c.large); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%+v: %v s, want %v", c.large, got, c.want)
		}
	}
}
