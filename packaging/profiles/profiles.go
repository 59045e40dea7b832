// Package profiles holds the templates that Viaduct is shipped with: in the program, for the first start of a server, and as
// files, for operators to start from.
package profiles

import "embed"

// Files are documents of `kind: conf`.
//
//go:embed *.yaml
var Files embed.FS
