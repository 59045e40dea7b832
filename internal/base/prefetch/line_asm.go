//go:build amd64 || arm64

package prefetch

import "unsafe"

// line has the cache line of an address fetched.
//
//go:noescape
func line(p unsafe.Pointer)
