// Package examples holds laboratories to begin with.
package examples

import _ "embed" // for the files

// TwoSubnets is two bridges with a router between them and four VMs: alice and
// mallory on one, bob and carol on the other. The demo and the benchmarks run on it.
//
//go:embed two-subnets.yaml
var TwoSubnets string

// Gateway is a subnet behind a router with masquerading and floating IPs, and an outside.
//
//go:embed gateway.yaml
var Gateway string

// DHCP is one network with an IPv4 and an IPv6 subnet. Of its VMs alice begins with no address, and mallory has hers.
//
//go:embed dhcp.yaml
var DHCP string

// TwoHosts is a subnet that two hosts share, and another one behind a router.
//
//go:embed two-hosts.yaml
var TwoHosts string

// SecurityGroups is a web server, its database, two VMs of the default group, and a world outside.
//
//go:embed security-groups.yaml
var SecurityGroups string

// LoadBalancer is three web servers behind one address, a client beside them, and a world outside.
//
//go:embed load-balancer.yaml
var LoadBalancer string

// Rules is a gateway that translates by rules: an inside, a service on two machines, and a world outside.
//
//go:embed rules.yaml
var Rules string

// VLAN is a VLAN-aware bridge with a trunk, VMs of two VLANs, and another bridge in one of them.
//
//go:embed vlan.yaml
var VLAN string

// Story is a provider router, a tenant router that masquerades, and its bridge on two hosts: one VM begins with no address.
//
//go:embed story.yaml
var Story string
