package agent

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/viaduct-net/viaduct/internal/conf"
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

// flowRoom is the least size of the kernel's table of flows, so that agent.datapath.max_flow_count can be raised while it is in use. The
// memory is taken as flows come, but for 16 bytes of each.
const flowRoom = 1 << 20

func (o *Options) ebpf(s *conf.Settings) ebpf.Options {
	return ebpf.Options{Name: o.Name, MaxFlows: max(s.MaxFlowCount, flowRoom), Workers: workers(s), Tokens: int(s.Tokens.Global), Poll: pollTime(s, runtime.NumCPU())}
}

func (o *Options) ovs(s *conf.Settings) ovs.Options {
	return ovs.Options{Name: o.Name, Workers: workers(s)}
}

// workers is how many packet workers there are.
func workers(s *conf.Settings) int {
	if s.Workers > 0 {
		return s.Workers
	}
	return max(1, runtime.NumCPU()/2)
}

// openDatapath opens the driver's. Two of them on the same interfaces would both carry each packet, so what an
// earlier agent has left of the other one must be cleaned up first.
func openDatapath(o *Options, s *conf.Settings) (datapath.Datapath, error) {
	inEBPF, inOVS := ebpf.Exists(o.ebpf(s)), ovs.Exists(o.ovs(s))
	driver := Driver(s.Driver)
	if driver == Auto {
		driver = EBPF
		if inOVS && !inEBPF {
			driver = OVS
		}
	}
	if driver == OVS && inEBPF || driver == EBPF && inOVS {
		return nil, fmt.Errorf("datapath %s: an agent with another driver than %s has left it: `viaduct agent --cleanup` first", o.Name, driver)
	}
	if driver == OVS {
		return openOVS(o, s)
	}
	dp, err := ebpf.Open(o.ebpf(s))
	if err == nil {
		log := o.Log.For(logDatapath)
		log.Info("datapath", "driver", EBPF, "name", o.Name)
		if version, anew, warnings := dp.Predecessor(); anew {
			log.Warn("an agent of another version has left maps of a layout that is not known here: its flows are simulated anew, and go on meanwhile",
				"layout", version, "unreadable", errors.Join(warnings...))
		} else if version != 0 {
			log.Info("maps of an earlier agent converted", "layout", version)
		}
		return dp, nil
	}
	if Driver(s.Driver) == EBPF || !errors.Is(err, ebpf.ErrKernel) {
		return nil, err
	}
	second, err2 := openOVS(o, s)
	if err2 != nil {
		return nil, fmt.Errorf("no datapath driver works here: %s: %w; %s: %w", EBPF, err, OVS, err2)
	}
	return second, nil
}

func openOVS(o *Options, s *conf.Settings) (datapath.Datapath, error) {
	dp, err := ovs.Open(o.ovs(s))
	if err != nil {
		return nil, err
	}
	log := o.Log.For(logDatapath)
	log.Info("datapath", "driver", OVS, "name", o.Name)
	if err := dp.Unguarded(); err != nil {
		log.Warn("packets are admitted when the agent reads them, not in the kernel: a flood costs it a part of one CPU", "why", err)
	}
	return dp, nil
}

// Cleanup removes all that agents of the options' name have left on the host, whatever their driver: programs, maps, pins, the datapath of
// Open vSwitch. It fails while one runs.
func Cleanup(o Options) error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	s := conf.Defaults() // only names count
	t := Tunnel{Device: o.TunnelDevice}
	return errors.Join(ebpf.Cleanup(o.ebpf(s)), ovs.Cleanup(o.ovs(s)), t.remove())
}
