// Package htb is the hierarchical token bucket that divides the agent's processing
// capacity between ports.
//
// A token is the right to have one missed packet in flight in user space. There is no
// clock: a token comes back when its packet has been processed, so the refill rate
// is the processing rate.
//
//	root            accumulates what no leaf has room for
//	 |-- infra      holds nothing; share: that of its two children together
//	 |    |-- tunnel  holds nothing; one leaf per tunnel port
//	 |    '-- vtep    holds nothing; one leaf per VTEP port
//	 '-- vms        holds nothing; one leaf per VM port
//
// infra exists so that the tunnel keeps its half of the capacity when there is no VTEP
// traffic, or the other way round: what one of them leaves goes to its sibling before it
// goes to the VMs. Between classes tokens are dealt one by one, in turns as long as the
// class's share, to those that are not full, with a cursor that persists.
//
// Between the ports of a class each token goes to the port that has least out of all that are not full: least in its bucket and in flight together. Hence
// ports that want more than they get have equally many packets waiting, however long each packet takes, and package upcall has of each what it needs to
// serve them in order of time. Equal numbers of tokens would have them served equal numbers of packets, as they are where another class keeps tokens short. And who sends little has its token back first.
//
// # Cells
//
// The token counts of leaves and root are int64 cells in memory that is shared with
// the datapath (for eBPF: with the kernel), which takes tokens at any time by an atomic
// decrement, and adds one back when it finds that there was none. Hence
// everything here changes cells by atomic additions only and never stores: a cell that is
// briefly one too low is made good by the addition that follows. Two effects remain, both
// harmless: a leaf may exceed its capacity by as many tokens as CPUs were in between, and a
// taker may be refused while another is in between. No token is lost or minted by either.
//
// What a port has in flight is what its bucket was given, less what it holds and what has come back. So whoever returns a token says whose it was; one that
// was drawn from the root is the root's, and goes back into the game.
//
// # Differences from the reference
//
// The test vectors of the reference (T1-T8, P1-P6, D1-D14) are in vectors_test.go, with
// the reason for each that is adapted: there is no multiplier, no rate object, 50 % for
// tunnel and VTEP together is kept whatever their number, and a leaf of size 0
// draws on the root. Ports of one class have no turns.
package htb
