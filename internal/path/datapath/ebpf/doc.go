// Package ebpf is the datapath in the Linux kernel's tc hook (bpf/viaduct.c): exact-match
// flows, admission by tokens, misses over ring buffers, packets sent through packet
// sockets. Needs Linux 6.1 and what require.go says.
//
//	open.go     load or adopt what is pinned; Close; Cleanup
//	ports.go    interfaces become ports          attach.go  tcx, or clsact before Linux 6.6
//	flows.go    put, delete, dump                encode.go  action list <-> steps of a flow
//	misses.go   read what the kernel sends up
//	execute.go  send packets                     socket.go  packet socket, sendmmsg
//
// Programs, maps and links are pinned in bpffs: they forward on while no agent runs, and the next Open adopts them.
package ebpf
