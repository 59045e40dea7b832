// Package interop holds Viaduct's simulator against OVN: random networks are built in both, random packets
// are decided by both (ovn-trace on one side, mirror and simulation on the other), and the verdicts must agree: which
// ports get the packet with which headers, what a device answers, or that it ends. Differences that
// are meant are in docs/ovn-differences.md; each is recognised by a rule of its own, and counted.
package interop
