// Package lab is a laboratory of hosts and VMs on one machine. Each is a network namespace;
// a host's has a real agent in it, and a real server has one of its own, so that nothing
// of a laboratory is visible in the machine's namespace and several can run at once.
//
// What a laboratory consists of is written down (Manifest) before any of it is made, and its processes are
// found by the namespaces they are in: Down therefore works from any process and after a
// crash at any moment, and leaves the machine as it was.
package lab
