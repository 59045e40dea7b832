package ebpf

// The object is checked in: building needs Go alone. Regenerate with clang 14 after a change in bpf/.
//
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -cflags "-O2 -g -mcpu=v3 -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu" -type flow_key -type flow -type step -type wide_step -type port -type port_stats -type settings -type miss -type exec_tunnel -type rate bpf ../../../../bpf/viaduct.c
