package lab

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// Status is a laboratory as it is now.
type Status struct {
	Name   string       `json:"name"`
	Server DaemonStatus `json:"server"`
	Hosts  []HostStatus `json:"hosts"`
	VMs    []VMStatus   `json:"vms"`
}

// DaemonStatus is that of a server or an agent.
type DaemonStatus struct {
	PID     int    `json:"pid"`
	Running bool   `json:"running"`
	Ready   bool   `json:"ready"`
	Socket  string `json:"socket"`
	Log     string `json:"log"`
}

// HostStatus is a host's.
type HostStatus struct {
	Name  string       `json:"name"`
	Space ns.Space     `json:"space"`
	Agent DaemonStatus `json:"agent"`
}

// VMStatus is a VM with the status of its port.
type VMStatus struct {
	VM
	Status string `json:"status"` // as the agent has it; "" when it does not say
}

// Status asks the daemons. One that does not answer is not ready; that is no error.
func (l *Lab) Status(ctx context.Context) Status {
	s := Status{Name: l.Name, Server: daemonStatus(ctx, l.Server.Space, l.Server.PID, l.Server.Socket, l.Server.Log, l.Server.ready)}
	byInterface := map[[2]string]string{}
	for i := range l.Hosts {
		h := &l.Hosts[i]
		agent := debug.NewClient(h.Socket())
		s.Hosts = append(s.Hosts, HostStatus{h.Name, h.Space, daemonStatus(ctx, h.Space, h.PID, h.Socket(), h.Log, agent.Ready)})
		ports, err := agent.Ports(ctx)
		if err != nil {
			continue
		}
		for _, p := range ports {
			byInterface[[2]string{h.Name, p.Interface}] = p.Status
		}
	}
	for _, vm := range l.VMs {
		s.VMs = append(s.VMs, VMStatus{vm, byInterface[[2]string{vm.Host, vm.Interface}]})
	}
	return s
}

func daemonStatus(ctx context.Context, space ns.Space, pid int, socket, log string, ready func(context.Context) error) DaemonStatus {
	pids, _ := space.Processes() // none that can be found is none that runs
	return DaemonStatus{PID: pid, Running: slices.Contains(pids, pid), Ready: ready(ctx) == nil, Socket: socket, Log: log}
}

func (l *Lab) writeTable(w io.Writer, s Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "laboratory %s\n\nDAEMON\tPID\tSTATUS\tLOG\n", s.Name)
	fmt.Fprintf(t, "server\t%d\t%s\t%s\n", s.Server.PID, s.Server, s.Server.Log)
	for _, h := range s.Hosts {
		fmt.Fprintf(t, "agent %s\t%d\t%s\t%s\n", h.Name, h.Agent.PID, h.Agent, h.Agent.Log)
	}
	fmt.Fprintf(t, "\nVM\tHOST\tPORT\tINTERFACE\tSTATUS\tADDRESSES\n")
	for _, vm := range s.VMs {
		status := vm.Status
		if status == "" {
			status = "unknown"
		}
		var addresses []string
		for _, a := range vm.NIC.Addresses {
			addresses = append(addresses, a.String())
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", vm.Name, vm.Host, vm.Port, vm.Interface, status, strings.Join(addresses, " "))
	}
	return t.Flush()
}

func (d DaemonStatus) String() string {
	switch {
	case !d.Running:
		return "ended"
	case !d.Ready:
		return "not ready"
	}
	return "ready"
}
