package agent

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// firstAdvertisement is how soon after the start hosts hear of their routers (RFC 4861 section 10:
// MAX_INITIAL_RTR_ADVERT_INTERVAL): whoever was here before may have been silent for long.
const firstAdvertisement = 16 * time.Second

// advertise has routers tell the VMs of this host, at intervals, that they are still there.
func (a *Agent) advertise(ctx context.Context) error {
	due := time.NewTimer(firstAdvertisement)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due.C:
		}
		w := a.workers[0]
		for _, port := range a.advertised() {
			w.Do(func() { w.Advertise(port) })
		}
		due.Reset(sim.AdvertiseInterval * time.Second)
	}
}

// advertised are this host's ports on bridges where routers advertise.
func (a *Agent) advertised() (ports []uuid.UUID) {
	s := a.mirror.Snapshot()
	for _, br := range s.Bridges {
		speaks := false
		for i := range br.Subnets {
			speaks = speaks || br.Subnets[i].RA
		}
		if !speaks {
			continue
		}
		for _, id := range br.Ports {
			if p := s.Port(id); p != nil && p.Host == a.host.ID {
				ports = append(ports, id)
			}
		}
	}
	return ports
}
