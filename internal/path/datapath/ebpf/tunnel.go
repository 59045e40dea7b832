package ebpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// SetTunnelKey implements datapath.Datapath.
func (d *Datapath) SetTunnelKey(key, port uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return datapath.ErrClosed
	}
	var err error
	if port != 0 {
		err = d.maps.TunnelKeys.Put(key, port)
	} else if err = d.maps.TunnelKeys.Delete(key); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tunnel key %#x: %w", key, err)
	}
	return nil
}

// TunnelKeys implements datapath.Datapath.
func (d *Datapath) TunnelKeys() (map[uint32]uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return nil, datapath.ErrClosed
	}
	keys := map[uint32]uint32{}
	var key, port uint32
	it := d.maps.TunnelKeys.Iterate()
	for it.Next(&key, &port) {
		keys[key] = port
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("tunnel keys: %w", err)
	}
	return keys, nil
}
