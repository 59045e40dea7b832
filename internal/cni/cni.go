// Package cni is the CNI plugin viaduct-cni (specification 1.1.0): a container's interface becomes a port of a bridge, with an
// address of the bridge's subnets. The local agent does what concerns the topology; the plugin makes the interface.
package cni

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/viaduct-net/viaduct/internal/agent/debug"
)

// DefaultSocket is the agent's.
const DefaultSocket = "/run/viaduct/agent.sock"

// timeout leaves the agent time to say what it waits for.
const timeout = 20 * time.Second

// Config is a network configuration.
type Config struct {
	types.PluginConf
	Bridge       string   `json:"bridge"`            // name or id
	Subnets      []string `json:"subnets,omitempty"` // names or ids; none: the bridge's first of each family
	MTU          int      `json:"mtu,omitempty"`     // bytes; 0: the subnet's
	DefaultRoute *bool    `json:"defaultRoute,omitempty"`
	PortSecurity *bool    `json:"portSecurity,omitempty"` // of ports that are created; default true
	Socket       string   `json:"socket,omitempty"`       // the agent's; default DefaultSocket
}

// Main runs the plugin as the environment and standard input say, and ends the process.
func Main(about string) {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status}, version.All, about)
}

func parse(stdin []byte) (*Config, *debug.Client, error) {
	c := &Config{Socket: DefaultSocket}
	if err := json.Unmarshal(stdin, c); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "the network configuration is no JSON", err.Error())
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "prevResult", err.Error())
	}
	if c.Bridge == "" {
		return nil, nil, types.NewError(types.ErrInvalidNetworkConfig, "bridge: is missing", "name the bridge of the virtual network that containers are on")
	}
	return c, debug.NewClient(c.Socket), nil
}

// portName is the name of an attachment's port: cni:NETWORK:CONTAINER:INTERFACE. None of the three can have a colon.
func portName(network, container, ifname string) string {
	return networkPrefix(network) + container + ":" + ifname
}

func networkPrefix(network string) string { return "cni:" + network + ":" }

// hostInterface is the name of the host's end for a port: as long as the kernel allows.
func hostInterface(port string) string {
	sum := sha256.Sum256([]byte(port))
	return "vdt" + hex.EncodeToString(sum[:6])
}

func add(args *skel.CmdArgs) (err error) {
	c, agent, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	name := portName(c.Name, args.ContainerID, args.IfName)
	v, err := newVeth(hostInterface(name), name, args)
	if err != nil {
		return err
	}
	defer v.close()
	defer func() {
		if err != nil { // a failed ADD leaves nothing
			err = errors.Join(err, v.remove(), agent.RemoveContainer(context.WithoutCancel(ctx), name))
		}
	}()
	x, err := agent.AddContainer(ctx, name, debug.ContainerRequest{
		Bridge: c.Bridge, Subnets: c.Subnets, Interface: v.host, PortSecurity: c.PortSecurity == nil || *c.PortSecurity,
	})
	if err != nil {
		return failed("the agent does not attach the container", err)
	}
	if c.MTU > 0 {
		x.MTU = c.MTU
	}
	if c.DefaultRoute == nil || *c.DefaultRoute {
		x.Routes = append(x.Routes, defaultRoutes(x.Addresses)...)
	}
	if err := v.configure(&x); err != nil {
		return err
	}
	return types.PrintResult(v.result(&x), c.CNIVersion)
}

func del(args *skel.CmdArgs) error {
	c, agent, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return remove(ctx, agent, portName(c.Name, args.ContainerID, args.IfName))
}

// remove takes a port and the host's end away, whatever there is of them.
func remove(ctx context.Context, agent *debug.Client, name string) error {
	if err := agent.RemoveContainer(ctx, name); err != nil {
		return failed("the agent does not remove port "+name, err)
	}
	return deleteLink(hostInterface(name))
}

func gc(args *skel.CmdArgs) error {
	c, agent, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	valid := map[string]bool{}
	for _, a := range c.ValidAttachments {
		valid[portName(c.Name, a.ContainerID, a.IfName)] = true
	}
	ports, err := agent.Containers(ctx, networkPrefix(c.Name))
	if err != nil {
		return failed("the agent does not list its ports", err)
	}
	names, err := ownLinks(networkPrefix(c.Name))
	if err != nil {
		return err
	}
	for _, p := range ports {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	var errs []error
	for _, name := range slices.Compact(names) {
		if !valid[name] {
			errs = append(errs, remove(ctx, agent, name))
		}
	}
	return errors.Join(errs...)
}

func status(args *skel.CmdArgs) error {
	_, agent, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := agent.Ready(ctx); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, "the agent of this host is not ready", err.Error())
	}
	return nil
}

func check(args *skel.CmdArgs) error {
	c, agent, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if c.PrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "prevResult: is missing", "CHECK compares with what ADD has answered")
	}
	want, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, "prevResult", err.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	name := portName(c.Name, args.ContainerID, args.IfName)
	ports, err := agent.Containers(ctx, name)
	if err != nil {
		return failed("the agent does not list its ports", err)
	}
	i := slices.IndexFunc(ports, func(p debug.Container) bool { return p.Name == name })
	if i < 0 {
		return wrong("port %s is not bound on this host", name)
	}
	if p := ports[i]; p.Status != debug.StatusUp || p.Interface != hostInterface(name) {
		return wrong("port %s is %s, on interface %s", name, p.Status, p.Interface)
	}
	return compare(args, want, &ports[i])
}

func wrong(format string, args ...any) error {
	return types.NewError(types.ErrInternal, "not as ADD left it", fmt.Sprintf(format, args...))
}

// failed sorts an error of the agent into those that runtimes tell apart.
func failed(what string, err error) error {
	code := types.ErrInternal
	switch {
	case errors.Is(err, debug.ErrUnreachable), errors.Is(err, debug.ErrUnavailable):
		code = types.ErrTryAgainLater
	case errors.Is(err, debug.ErrNotFound), errors.Is(err, debug.ErrInvalid):
		code = types.ErrInvalidNetworkConfig
	}
	return types.NewError(code, what, strings.TrimSpace(err.Error()))
}
