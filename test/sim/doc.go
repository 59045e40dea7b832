// Package sim runs a whole cloud in one goroutine, from a seed: the agents of several hosts, as they are (agent.Steps), on fake datapaths; a
// model of the store with what its watches, leases and links may do to those who use it; the tunnels between the hosts; the
// VMs; and one clock that stands still unless it is moved. The same seed gives the same run, to the byte.
//
//	sim.go      time, chance, and what is written down
//	plan.go     what a seed means: a network, and what happens to it when
//	network.go  random networks        change.go  random changes       fault.go  what goes wrong
//	store.go    the store, and its watches     shared.go  its sessions
//	host.go     one host: its agent, datapath and tunnel
//	vm.go       who sends, answers, and hears
//	oracle.go   what should become of a packet, by the store's own state of the network
//	check.go    what must hold at every moment, after quiet, and after silence
//	shrink.go   the shortest story that still fails
package sim
