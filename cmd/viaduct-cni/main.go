// Command viaduct-cni is the CNI plugin by which container runtimes attach containers to virtual networks.
package main

import "github.com/viaduct-net/viaduct/internal/cni"

// version is set by linker flags.
var version = "devel"

func main() { cni.Main("viaduct-cni " + version) }
