package access

import "time"

// SetClock lets a test move the time of t.
func SetClock(t *Tokens, now func() time.Time) { t.now = now }
