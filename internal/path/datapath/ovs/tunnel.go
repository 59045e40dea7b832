package ovs

import "github.com/viaduct-net/viaduct/internal/path/datapath"

// SetTunnelKey implements datapath.Datapath.
func (*Datapath) SetTunnelKey(uint32, uint32) error { return datapath.ErrTunnel }

// TunnelKeys implements datapath.Datapath.
func (*Datapath) TunnelKeys() (map[uint32]uint32, error) { return nil, datapath.ErrTunnel }
