package agent

import (
	"testing"
	"time"
)

func TestPause(t *testing.T) {
	for _, c := range []struct{ every, took, want time.Duration }{
		{5 * time.Second, 10 * time.Millisecond, 4990 * time.Millisecond},   // as often as configured
		{5 * time.Second, 1400 * time.Millisecond, 5600 * time.Millisecond}, // a million flows: a fifth of the time
		{5 * time.Second, 4 * time.Second, 1500 * time.Millisecond},         // use is still to be reported in time
		{5 * time.Second, time.Minute, time.Millisecond},
		{time.Millisecond, 0, time.Millisecond},
	} {
		if got := pause(c.every, c.took); got != c.want {
			t.Errorf("every %v, took %v: pause %v, want %v", c.every, c.took, got, c.want)
		}
	}
}
