package agent

import (
	"errors"
	"fmt"
	"os"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ebpf"
	"github.com/viaduct-net/viaduct/internal/path/datapath/ovs"
)

// Driver says what switches the packets of a host (agent.datapath.driver).
type Driver string

// Drivers.
const (
	Auto Driver = "auto" // what an earlier agent has used here, else eBPF, else Open vSwitch
	EBPF Driver = "ebpf"
	OVS  Driver = "ovs"
)

// Validate reports a driver that does not exist.
func (d Driver) Validate() error {
	switch d {
	case "", Auto, EBPF, OVS:
		return nil
	}
	return fmt.Errorf("datapath driver %q: want %s, %s or %s", d, EBPF, OVS, Auto)
}

func (o *Options) ebpf() ebpf.Options {
	return ebpf.Options{Name: o.Name, MaxFlows: o.MaxFlows, Workers: o.Workers, Tokens: int(o.Tokens.Global)}
}

func (o *Options) ovs() ovs.Options { return ovs.Options{Name: o.Name, Workers: o.Workers} }

// openDatapath opens the driver's. Two of them on the same interfaces would both carry each packet, so what an
// earlier agent has left of the other one must be cleaned up first.
func openDatapath(o *Options) (datapath.Datapath, error) {
	if err := o.Driver.Validate(); err != nil {
		return nil, err
	}
	inEBPF, inOVS := ebpf.Exists(o.ebpf()), ovs.Exists(o.ovs())
	driver := o.Driver
	if driver == "" || driver == Auto {
		driver = EBPF
		if inOVS && !inEBPF {
			driver = OVS
		}
	}
	if driver == OVS && inEBPF || driver == EBPF && inOVS {
		return nil, fmt.Errorf("datapath %s: an agent with another driver than %s has left it: `viaduct agent --cleanup` first", o.Name, driver)
	}
	if driver == OVS {
		return openOVS(o)
	}
	dp, err := ebpf.Open(o.ebpf())
	if err == nil {
		o.Log.Info("datapath", "driver", EBPF, "name", o.Name)
		return dp, nil
	}
	if o.Driver == EBPF || !errors.Is(err, ebpf.ErrKernel) {
		return nil, err
	}
	second, err2 := openOVS(o)
	if err2 != nil {
		return nil, fmt.Errorf("no datapath driver works here: %s: %w; %s: %w", EBPF, err, OVS, err2)
	}
	return second, nil
}

func openOVS(o *Options) (datapath.Datapath, error) {
	dp, err := ovs.Open(o.ovs())
	if err != nil {
		return nil, err
	}
	o.Log.Info("datapath", "driver", OVS, "name", o.Name)
	if err := dp.Unguarded(); err != nil {
		o.Log.Warn("packets are admitted when the agent reads them, not in the kernel: a flood costs it a part of one CPU", "why", err)
	}
	return dp, nil
}

// Cleanup removes all that agents of the options' name have left on the host, whatever their driver: programs, maps, pins, the datapath of
// Open vSwitch. It fails while one runs.
func Cleanup(o Options) error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	o.Tunnel.withDefaults()
	return errors.Join(ebpf.Cleanup(o.ebpf()), ovs.Cleanup(o.ovs()), o.Tunnel.remove())
}
