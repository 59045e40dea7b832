package server

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// collectTimeout bounds how long a scrape waits for the store.
const collectTimeout = 2 * time.Second

// storeCollector asks the store how far it is, and times the answer.
type storeCollector struct {
	store *etcd.Store
}

var (
	storeUp       = prometheus.NewDesc("viaduct_store_up", "1 when the store answers.", nil, nil)
	storeRevision = prometheus.NewDesc("viaduct_store_revision", "Revision of the store; hosts that lag have a lower viaduct_mirror_revision.", nil, nil)
	storeRead     = prometheus.NewDesc("viaduct_store_read_seconds", "How long a read of one key took just now.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c storeCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- storeUp
	ch <- storeRevision
	ch <- storeRead
}

// Collect implements prometheus.Collector.
func (c storeCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	start := time.Now()
	rev, err := c.store.Revision(ctx)
	if err != nil {
		ch <- prometheus.MustNewConstMetric(storeUp, prometheus.GaugeValue, 0)
		return
	}
	ch <- prometheus.MustNewConstMetric(storeUp, prometheus.GaugeValue, 1)
	ch <- prometheus.MustNewConstMetric(storeRevision, prometheus.GaugeValue, float64(rev))
	ch <- prometheus.MustNewConstMetric(storeRead, prometheus.GaugeValue, time.Since(start).Seconds())
}

// newRegistry has what is about this process and its store.
func newRegistry(s *etcd.Store, version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "viaduct_build_info", Help: "1, with what the server was built from."}, []string{"version", "go_version"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), storeCollector{s}, build)
	return r
}
