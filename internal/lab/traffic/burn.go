package traffic

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Burn takes CPU time from others in the way that work of an attack does, without any traffic: what a victim loses to it is not the
// network's fault.
type Burn struct {
	CPUs     float64       // how many CPUs' time
	Duration time.Duration // at most; required
	Nice     int
}

// BurnResult is what a Burn has taken.
type BurnResult struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	Seconds    float64 `json:"seconds"`
}

// burnPeriod is how often each thread takes its share: about as long as a batch of packets and what surrounds it takes.
const burnPeriod = time.Millisecond

// Run burns until Duration or ctx ends.
func (b Burn) Run(ctx context.Context) (BurnResult, error) {
	if b.Duration <= 0 || b.CPUs < 0 {
		return BurnResult{}, errors.New("a burner needs a duration, and a number of CPUs that is not negative")
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, b.Nice); err != nil {
		return BurnResult{}, fmt.Errorf("niceness: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, b.Duration)
	defer cancel()
	start, threads := time.Now(), int(math.Ceil(b.CPUs))
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			runtime.LockOSThread()
			burnThread(ctx, b.CPUs/float64(threads), threadCPU)
		})
	}
	wg.Wait()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return BurnResult{}, err
	}
	cpu := time.Duration(used.Utime.Nano() + used.Stime.Nano())
	return BurnResult{CPUSeconds: cpu.Seconds(), Seconds: time.Since(start).Seconds()}, nil
}

// burnThread keeps to a share of its own CPU time, whatever it has missed, until ctx ends.
func burnThread(ctx context.Context, share float64, cpu func() time.Duration) {
	start, had := time.Now(), cpu()
	for ctx.Err() == nil {
		due := time.Duration(float64(time.Since(start)) * share)
		for cpu()-had < due && ctx.Err() == nil { // one that others keep from running would never be done
			for range 1000 {
			}
		}
		time.Sleep(burnPeriod)
	}
}

// threadCPU is how long the calling thread has run.
func threadCPU() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // cannot fail for this clock
	return time.Duration(t.Nano())
}
