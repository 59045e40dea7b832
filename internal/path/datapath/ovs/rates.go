package ovs

import (
	"fmt"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// SetRates implements datapath.Datapath: the module's meters are made for flows, of which an agent would have to put one into each.
func (d *Datapath) SetRates(no uint32, r datapath.Rates) error {
	if r == (datapath.Rates{}) {
		return nil
	}
	return fmt.Errorf("port %d: %w", no, datapath.ErrRates)
}
