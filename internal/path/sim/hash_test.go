package sim

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/match"
)

// TestPairHashIsSymmetric: both directions of a connection choose alike.
func TestPairHashIsSymmetric(t *testing.T) {
	addr := rapid.Map(rapid.SliceOfN(rapid.Byte(), 16, 16), func(b []byte) match.Addr { return match.Addr(b) })
	rapid.Check(t, func(t *rapid.T) {
		a, b := addr.Draw(t, "a"), addr.Draw(t, "b")
		there, back := pairHash(&a, &b), pairHash(&b, &a)
		if there != back {
			t.Fatalf("%#x, and %#x the other way", there, back)
		}
	})
}
