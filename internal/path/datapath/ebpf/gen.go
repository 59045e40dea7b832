package ebpf

// The object is checked in: building needs Go alone. Regenerate with clang 14 after a change in bpf/. With the build tag otherlayout the
// agent is one whose maps are laid out differently: tests replace it by this one.
//
//go:generate go tool bpf2go -tags !otherlayout -cc clang-14 -strip llvm-strip-14 -target bpfel -cflags "-O2 -g -mcpu=v3 -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu" -type flow_key -type flow -type step -type wide_step -type port -type port_stats -type settings -type layout -type miss -type exec_tunnel -type rate bpf ../../../../bpf/viaduct.c
//go:generate go tool bpf2go -tags otherlayout -output-stem bpf_other -cc clang-14 -strip llvm-strip-14 -target bpfel -cflags "-O2 -g -mcpu=v3 -Wall -Werror -DOTHER_LAYOUT -idirafter /usr/include/x86_64-linux-gnu" -type flow_key -type flow -type step -type wide_step -type port -type port_stats -type settings -type layout -type miss -type exec_tunnel -type rate bpf ../../../../bpf/viaduct.c
