package main

import (
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{5, 1, 3}, 3}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestParseBenchmark(t *testing.T) {
	out := []byte("goos: linux\nBenchmarkSimulateBridgeRouterBridge-2   \t  719282\t      1553 ns/op\t       0 B/op\t       0 allocs/op\n" +
		"BenchmarkSimulateBridgeRouterBridge-2   \t  700000\t      1600.5 ns/op\t 12 hits/op\t       8 B/op\t       1 allocs/op\nPASS\n")
	ns, allocs, err := parseBenchmark(out)
	if err != nil || !slices.Equal(ns, []float64{1553, 1600.5}) || !slices.Equal(allocs, []float64{0, 1}) {
		t.Errorf("%v, %v, %v", ns, allocs, err)
	}
	if _, _, err := parseBenchmark([]byte("ok  no benchmarks")); err == nil {
		t.Error("no error for no benchmark")
	}
}

func TestAgainst(t *testing.T) {
	f := figure("f", 3, "u").against(2)
	if *f.Peer != 2 || *f.Ratio != 1.5 {
		t.Errorf("%+v", f)
	}
}
