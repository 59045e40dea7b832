package conf

import (
	"slices"
	"strings"
)

// Absence is some agent.* keys of MidoNet (schema version 32) that have no meaning here, and why.
type Absence struct {
	Keys []string
	Why  string
}

// Absences are all of them. Operators who come from there look for them.
func Absences() (as []Absence) {
	for _, a := range absent {
		var keys []string
		for name := range strings.FieldsSeq(a.keys) {
			keys = append(keys, "agent."+name)
		}
		as = append(as, Absence{keys, a.why})
	}
	return as
}

// Absent is why a key of MidoNet does not exist, "" for others.
func Absent(name string) string {
	for _, a := range Absences() {
		if slices.Contains(a.Keys, name) {
			return a.Why
		}
	}
	return ""
}

var absent = []struct{ keys, why string }{
	{"router.max_bgp_peer_routes router.bgp_zookeeper_holdtime midolman.bgp_keepalive midolman.bgp_holdtime midolman.bgp_connect_retry",
		"routers do not speak BGP yet"},
	{"midolman.lock_memory", "the agent gives memory that it does not use back to the kernel, which locked memory would prevent; a host that swaps its agent out is short of memory"},
	{"midolman.dhcp_mtu", "the MTU is a field of the subnet"},
	{"midolman.max_pooled_contexts datapath.send_buffer_pool_max_size datapath.send_buffer_pool_initial_size datapath.send_buffer_pool_buf_size_kb",
		"each worker reuses the memory of one batch: there are no pools, and no packet is too long for a buffer"},
	{"midolman.output_channels midolman.input_channel_threading", "each worker has a ring and a sender of its own"},
	{"midolman.enable_bridge_arp", "a bridge always answers for neighbours that it knows: that spares the flood"},
	{"midolman.stats_http_server_port log_metrics.enabled log_metrics.period", "metrics are read by Prometheus where the agent listens, which is local (viaduct.yaml)"},
	{"midolman.off_heap_tables midolman.jmx_server.enabled midolman.jmx_server.port", "there is no Java virtual machine"},
	{"midolman.reclaim_datapath", "an agent always adopts what an earlier one has left"},
	{"midolman.flow_expiration_rate_per_second", "flows are removed in small steps between packets"},
	{"midolman.initial_storage_cache.enabled midolman.initial_storage_cache.ttl_ms midolman.initial_storage_cache.snapshot_retries midolman.initial_storage_cache.snapshot_timeout_ms",
		"the store itself gives the state at one revision, and then the changes"},
	{"datapath.vxlan_vtep_udp_port", "there are no hardware VTEPs yet"},
	{"datapath.control_packet_tos", "flow state goes through the tunnel like other packets, and has no class of its own yet"},
	{"datapath.set_tos_on_tunnel_header", "the outer header's DSCP is always 0"},
	{"datapath.vxlan_recirculate_udp_port datapath.recirc_cidr", "nothing is recirculated"},
	{"haproxy_health_monitor.health_monitor_enable haproxy_health_monitor.namespace_cleanup haproxy_health_monitor.haproxy_file_loc containers.haproxy.status_update_interval",
		"there is no HAProxy"},
	{"cluster.enabled cluster.tasks_db_connection minions.binding_api.enabled minions.binding_api.unix_socket", "ports are bound through the agent's socket, which is local (viaduct.yaml), or through the API"},
	{"flow_history.enabled flow_history.encoding flow_history.endpoint_service flow_history.queue_size flow_history.connection_interval",
		"there is no flow history; viaduct trace --live shows what is simulated"},
	{"openstack.metadata.enabled openstack.metadata.nova_metadata_url openstack.metadata.shared_secret", "there is no metadata proxy yet"},
	{"rule_logging.compress rule_logging.log_file_name rule_logging.log_directory rule_logging.max_files rule_logging.rotation_frequency",
		"there is no rule log; viaduct rules counts what each rule has met"},
	{"insights.enabled insights.listener_class", "there are no plug-ins"},
	{"containers.enabled containers.timeout containers.shutdown_grace_time containers.thread_count containers.log_directory " +
		"containers.ipsec.logging_enabled containers.ipsec.logging_poll_interval containers.ipsec.logging_timeout containers.ipsec.status_update_interval",
		"there are no service containers"},
	{"minions.executors.max_thread_pool_size minions.executors.thread_pool_shutdown_timeout minions.executors.thread_pool_name", "there are no thread pools"},
	{"minions.flow_state.enabled minions.flow_state.legacy_push_state minions.flow_state.local_push_state minions.flow_state.port minions.flow_state.connection_timeout " +
		"minions.flow_state.block_size minions.flow_state.blocks_per_port minions.flow_state.expiration_time minions.flow_state.expiration_delay " +
		"minions.flow_state.clean_unused_files_delay minions.flow_state.log_directory", "flow state is not kept on disk"},

	{"loggers.org.apache.zookeeper loggers.org.apache.cassandra loggers.me.prettyprint.cassandra loggers.org.eclipse.jetty loggers.com.datastax " +
		"loggers.netlink loggers.io.select-loop loggers.nsdb.nsdb-connection loggers.nsdb.nsdb-node loggers.nsdb.nsdb-class loggers.nsdb.nsdb-directory " +
		"loggers.nsdb.state-table loggers.nsdb.state-proxy-client",
		"the library is not used here; the store's client is agent.loggers.nsdb.root"},
	{"loggers.packets.default.packet-processor loggers.packet-worker loggers.state.table loggers.state.replication loggers.io.htb " +
		"loggers.devices.bridge loggers.devices.chain loggers.devices.gateway-mapping loggers.devices.ip-group loggers.devices.mirror " +
		"loggers.devices.port-group loggers.devices.qos-policy loggers.devices.router.root loggers.devices.router.arp-table loggers.devices.rule",
		"the packet's way does not log; viaduct trace shows its decisions"},
	{"loggers.devices.devices-service loggers.devices.host loggers.devices.l4lb loggers.devices.pool loggers.devices.pool-health-monitor loggers.devices.rule-logger " +
		"loggers.devices.tunnel-zone loggers.devices.underlay loggers.devices.vtep-port-mapping",
		"the copy of the virtual network has one log level, agent.loggers.devices.root"},
	{"loggers.routing.bgp", "routers do not speak BGP yet"},
	{"loggers.containers.root loggers.containers.ipsec.root loggers.containers.ipsec.ipsec-pluto loggers.services.root loggers.services.binding-api loggers.services.l4lb.root",
		"there are no service containers"},
}
