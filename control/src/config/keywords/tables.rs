//! The tables themselves: one for each block of the language.

use super::Body::{Block, Maybe, Nothing};
use super::Context::{self, Lines, Skipped};
use super::Group;
use super::Support::{Accepted, NoEffect, Used};

/// Every context that has a table.
pub(super) const ALL: &[Context] = &[
    Context::Root,
    Context::TrackGroup,
    Context::GlobalDefs,
    Context::SyncGroup,
    Context::GarpGroup,
    Context::VrrpInstance,
    Context::Authentication,
    Context::AuthHmac,
    Context::VrrpScript,
    Context::TrackProcess,
    Context::TrackFile,
    Context::BfdInstance,
    Context::Ssl,
    Context::VirtualServer,
    Context::RealServer,
    Context::SynProxy,
    Context::TcpCheck,
    Context::HttpGet,
    Context::Url,
    Context::SmtpCheck,
    Context::SmtpHost,
    Context::DnsCheck,
    Context::UdpCheck,
    Context::PingCheck,
    Context::MiscCheck,
    Context::FileCheck,
    Context::BfdCheck,
    Context::Dataplane,
    Context::DataplaneInterface,
];

/// Keywords followed by a command line.
pub(super) const SCRIPTS: &[&str] = &[
    "script",
    "startup_script",
    "shutdown_script",
    "notify",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "notify_deleted",
    "notify_master_rx_lower_pri",
    "notify_up",
    "notify_down",
    "quorum_up",
    "quorum_down",
    "misc_path",
    "notify_fifo_script",
    "vrrp_notify_fifo_script",
    "lvs_notify_fifo_script",
    "regex",
];

pub(super) const fn groups(context: Context) -> &'static [Group] {
    match context {
        Context::Root => ROOT,
        Context::TrackGroup => TRACK_GROUP,
        Context::GlobalDefs => GLOBAL_DEFS,
        Context::SyncGroup => SYNC_GROUP,
        Context::GarpGroup => GARP_GROUP,
        Context::VrrpInstance => VRRP_INSTANCE,
        Context::Authentication => AUTHENTICATION,
        Context::AuthHmac => AUTH_HMAC,
        Context::VrrpScript => VRRP_SCRIPT,
        Context::TrackProcess => TRACK_PROCESS,
        Context::TrackFile => TRACK_FILE,
        Context::BfdInstance => BFD_INSTANCE,
        Context::Ssl => SSL,
        Context::VirtualServer => VIRTUAL_SERVER,
        Context::RealServer => REAL_SERVER,
        Context::SynProxy => SYN_PROXY,
        Context::TcpCheck | Context::PingCheck => CONNECTION_CHECK,
        Context::HttpGet => HTTP_GET,
        Context::Url => URL,
        Context::SmtpCheck => SMTP_CHECK,
        Context::SmtpHost => SMTP_HOST,
        Context::DnsCheck => DNS_CHECK,
        Context::UdpCheck => UDP_CHECK,
        Context::MiscCheck => MISC_CHECK,
        Context::FileCheck => FILE_CHECK,
        Context::BfdCheck => BFD_CHECK,
        Context::Dataplane => DATAPLANE,
        Context::DataplaneInterface => DATAPLANE_INTERFACE,
        Context::DataplaneTimeouts | Lines | Skipped => &[],
    }
}

const fn idle(names: &'static [&'static str]) -> Group {
    Group { body: Nothing, support: NoEffect, names }
}

const fn idle_block(context: Context, names: &'static [&'static str]) -> Group {
    Group { body: Block(context), support: NoEffect, names }
}

const fn used(names: &'static [&'static str]) -> Group {
    Group { body: Nothing, support: Used, names }
}

const fn used_block(context: Context, names: &'static [&'static str]) -> Group {
    Group { body: Block(context), support: Used, names }
}

const ROOT: &[Group] = &[
    used_block(Context::GlobalDefs, &["global_defs"]),
    used_block(Lines, &["static_ipaddress", "virtual_server_group", "local_address_group"]),
    used_block(Context::VirtualServer, &["virtual_server"]),
    used_block(Context::Dataplane, &["dataplane"]),
    idle(&[
        "linkbeat_use_polling",
        "net_namespace",
        "net_namespace_ipvs",
        "namespace_with_ipsets",
        "use_pid_dir",
        "instance",
        "child_wait_time",
        "include_check",
    ]),
    idle_block(Lines, &["static_routes", "static_rules", "linkbeat_interfaces", "interface_up_down_delays"]),
    idle_block(Context::TrackGroup, &["track_group"]),
    idle_block(Context::SyncGroup, &["vrrp_sync_group"]),
    idle_block(Context::GarpGroup, &["garp_group"]),
    idle_block(Context::VrrpInstance, &["vrrp_instance"]),
    idle_block(Context::VrrpScript, &["vrrp_script"]),
    idle_block(Context::TrackProcess, &["vrrp_track_process"]),
    idle_block(Context::TrackFile, &["track_file", "vrrp_track_file"]),
    idle_block(Context::BfdInstance, &["bfd_instance"]),
    idle_block(Context::Ssl, &["SSL"]),
];

const TRACK_GROUP: &[Group] = &[idle_block(Lines, &["group"])];

const GLOBAL_DEFS: &[Group] = &[
    used(&["router_id", "lvs_timeouts", "default_interface"]),
    // lvs_id: the name of router_id in keepalived 1.2.
    used(&["lvs_id"]),
    idle_block(Lines, &["notification_email"]),
    idle(&[
        "process_names",
        "process_name",
        "vrrp_process_name",
        "checker_process_name",
        "bfd_process_name",
        "lvs_process_name",
        "notification_email_from",
        "smtp_server",
        "smtp_helo_name",
        "smtp_connect_timeout",
        "smtp_alert",
        "smtp_alert_vrrp",
        "smtp_alert_checker",
        "no_email_faults",
        "no_checker_emails",
        "checker_log_all_failures",
        "rs_init_notifies",
        "startup_script",
        "startup_script_timeout",
        "shutdown_script",
        "shutdown_script_timeout",
        "use_symlink_paths",
        "set_supplementary_groups",
        "enable_script_security",
        "script_security",
        "script_user",
        "linkbeat_use_polling",
        "net_namespace",
        "net_namespace_ipvs",
        "namespace_with_ipsets",
        "use_pid_dir",
        "instance",
        "child_wait_time",
    ]),
    idle(&[
        "max_auto_priority",
        "min_auto_priority_delay",
        "vrrp_priority",
        "checker_priority",
        "bfd_priority",
        "vrrp_rt_priority",
        "checker_rt_priority",
        "bfd_rt_priority",
        "vrrp_no_swap",
        "checker_no_swap",
        "bfd_no_swap",
        "vrrp_cpu_affinity",
        "checker_cpu_affinity",
        "bfd_cpu_affinity",
        "vrrp_rlimit_rttime",
        "checker_rlimit_rttime",
        "bfd_rlimit_rttime",
        "vrrp_rlimit_rtime",
        "checker_rlimit_rtime",
        "bfd_rlimit_rtime",
        "dynamic_interfaces",
        "disable_local_igmp",
        "v3_checksum_as_v2",
    ]),
    idle(&["lvs_flush", "lvs_flush_on_stop", "lvs_flush_onstop", "lvs_sync_daemon"]),
    idle(&[
        "vrrp_mcast_group4",
        "vrrp_mcast_group6",
        "vrrp_garp_master_delay",
        "vrrp_garp_delay",
        "vrrp_garp_master_repeat",
        "vrrp_garp_master_refresh",
        "vrrp_garp_master_refresh_repeat",
        "vrrp_garp_lower_prio_delay",
        "vrrp_garp_lower_prio_repeat",
        "vrrp_down_timer_adverts",
        "vrrp_garp_interval",
        "vrrp_gna_interval",
        "vrrp_min_garp",
        "vrrp_garp_extra_if",
        "vrrp_vmac_garp_intvl",
        "vrrp_lower_prio_no_advert",
        "vrrp_higher_prio_send_advert",
        "vrrp_version",
        "vrrp_iptables",
        "vrrp_ipsets",
        "nftables",
        "nftables_priority",
        "nftables_ifindex",
        "nftables_counters",
        "nftables_ipvs",
        "nftables_ipvs_priority",
        "nftables_ipvs_start_fwmark",
        "vrrp_check_unicast_src",
        "vrrp_skip_check_adv_addr",
        "vrrp_strict",
        "vrrp_owner_ignore_adverts",
        "vrrp_notify_priority_changes",
        "fifo_write_vrrp_states_on_reload",
        "vrrp_startup_delay",
        "vrrp_delay_after_boot",
        "log_unknown_vrids",
        "vmac_prefix",
        "vmac_addr_prefix",
    ]),
    idle(&[
        "notify_fifo",
        "notify_fifo_script",
        "vrrp_notify_fifo",
        "vrrp_notify_fifo_script",
        "lvs_notify_fifo",
        "lvs_notify_fifo_script",
        "snmp_socket",
        "enable_traps",
        "enable_snmp_vrrp",
        "enable_snmp_keepalived",
        "enable_snmp_checker",
        "enable_snmp_rfc",
        "enable_snmp_rfcv2",
        "enable_snmp_rfcv3",
        "snmp_vs_stats_update_interval",
        "snmp_rs_stats_update_interval",
        "enable_dbus",
        "dbus_service_name",
        "dbus_no_interface_name",
        "vrrp_netlink_cmd_rcv_bufs",
        "vrrp_netlink_cmd_rcv_bufs_force",
        "vrrp_netlink_monitor_rcv_bufs",
        "vrrp_netlink_monitor_rcv_bufs_force",
        "lvs_netlink_cmd_rcv_bufs",
        "lvs_netlink_cmd_rcv_bufs_force",
        "lvs_netlink_monitor_rcv_bufs",
        "lvs_netlink_monitor_rcv_bufs_force",
        "process_monitor_rcv_bufs",
        "process_monitor_rcv_bufs_force",
        "vrrp_rx_bufs_policy",
        "vrrp_rx_bufs_multiplier",
        "umask",
        "random_seed",
        "reload_check_config",
        "reload_time_file",
        "reload_repeat",
        "reload_file",
        "include_check",
        "config_save_dir",
        "tmp_config_directory",
        "data_use_instance",
        "json_version",
        "iproute_usr_dir",
        "iproute_etc_dir",
        "state_dump_file",
        "stats_dump_file",
        "json_dump_file",
        "state_file_location",
        "stats_file_location",
        "json_file_location",
    ]),
];

const TRACKING: Group =
    idle_block(Lines, &["track_interface", "track_script", "track_file", "track_process", "track_bfd"]);

const SYNC_GROUP: &[Group] = &[
    idle_block(Lines, &["group"]),
    TRACKING,
    idle(&[
        "notify_master",
        "notify_backup",
        "notify_fault",
        "notify_stop",
        "notify",
        "smtp_alert",
        "global_tracking",
        "sync_group_tracking_weight",
        "notify_priority_changes",
    ]),
];

const GARP_GROUP: &[Group] =
    &[idle(&["garp_interval", "gna_interval", "interface"]), idle_block(Lines, &["interfaces"])];

const VRRP_INSTANCE: &[Group] = &[
    idle_block(
        Lines,
        &["unicast_peer", "virtual_ipaddress", "virtual_ipaddress_excluded", "virtual_routes", "virtual_rules"],
    ),
    TRACKING,
    idle_block(Context::Authentication, &["authentication"]),
    idle_block(Context::AuthHmac, &["auth_hmac"]),
    idle(&[
        "state",
        "interface",
        "virtual_router_id",
        "priority",
        "advert_int",
        "version",
        "use_vmac",
        "use_vmac_addr",
        "vmac_xmit_base",
        "use_ipvlan",
        "vrf",
        "native_ipv6",
        "dont_track_primary",
        "mcast_src_ip",
        "unicast_src_ip",
        "mcast_dst_ip",
        "track_src_ip",
        "unicast_fault_no_peer",
        "check_unicast_src",
        "unicast_ttl",
        "old_unicast_checksum",
        "v3_checksum_as_v2",
        "no_virtual_ipaddress",
        "promote_secondaries",
        "accept",
        "no_accept",
        "nopreempt",
        "preempt",
        "preempt_delay",
        "garp_master_delay",
        "garp_master_repeat",
        "garp_master_refresh",
        "garp_master_refresh_repeat",
        "garp_lower_prio_delay",
        "garp_lower_prio_repeat",
        "garp_extra_if",
        "vmac_garp_intvl",
        "down_timer_adverts",
        "timer_expired_backup",
        "thread_timer_expired",
        "lower_prio_no_advert",
        "higher_prio_send_advert",
        "owner_ignore_adverts",
        "skip_check_adv_addr",
        "strict_mode",
        "notify_master",
        "notify_backup",
        "notify_fault",
        "notify_stop",
        "notify_deleted",
        "notify",
        "notify_master_rx_lower_pri",
        "notify_priority_changes",
        "smtp_alert",
        "debug",
        "kernel_rx_buf_size",
        "linkbeat_use_polling",
        "lvs_sync_daemon_interface",
    ]),
];

const AUTHENTICATION: &[Group] = &[idle(&["auth_type", "auth_pass"])];

const AUTH_HMAC: &[Group] = &[idle(&["key", "active_key", "anti_replay", "time_window", "mode"])];

const VRRP_SCRIPT: &[Group] =
    &[idle(&["script", "interval", "timeout", "weight", "rise", "fall", "user", "init_fail"])];

const TRACK_PROCESS: &[Group] = &[idle(&[
    "process",
    "param_match",
    "weight",
    "quorum",
    "quorum_max",
    "delay",
    "fork_delay",
    "terminate_delay",
    "full_command",
])];

const TRACK_FILE: &[Group] = &[idle(&["file", "weight", "init_file"])];

const BFD_INSTANCE: &[Group] = &[idle(&[
    "neighbor_ip",
    "neighbour_ip",
    "source_ip",
    "min_rx",
    "min_tx",
    "idle_tx",
    "multiplier",
    "passive",
    "ttl",
    "hoplimit",
    "max_hops",
    "multihop",
    "weight",
    "vrrp",
    "checker",
])];

const SSL: &[Group] = &[idle(&["password", "ca", "certificate", "key"])];

const VIRTUAL_SERVER: &[Group] = &[
    used(&[
        "lvs_sched",
        "lb_algo",
        "lvs_method",
        "lb_kind",
        "protocol",
        "weight",
        "inhibit_on_failure",
        "persistence_timeout",
        "persistence_granularity",
        "sorry_server",
        "sorry_server_inhibit",
        "sorry_server_lvs_method",
        "mh-port",
        "mh-fallback",
        "sh-port",
        "sh-fallback",
        "flag-1",
        "flag-2",
        "flag-3",
        "ip_family",
        "ops",
        "blocklist",
        "allowlist",
        // Refused rather than ignored: without them packets would go another way than the file says.
        "laddr_group_name",
    ]),
    // Of Sluice, unknown to keepalived.
    used(&["mss_clamp", "ftp", "tunnel_source", "connection_limit", "connection_rate", "drain"]),
    used(&["toa", "proxy_protocol", "tcp_timestamps", "expire_rst"]),
    used_block(Context::RealServer, &["real_server"]),
    Group { body: Maybe(Context::SynProxy), support: Used, names: &["syn_proxy"] },
    Group { body: Nothing, support: Accepted, names: &["delay_loop", "hashed"] },
    idle(&[
        "persistence_engine",
        "ha_suspend",
        "smtp_alert",
        "virtualhost",
        "snmp_name",
        "alpha",
        "omega",
        "quorum",
        "hysteresis",
        "quorum_up",
        "quorum_down",
        "connect_timeout",
        "retry",
        "delay_before_retry",
        "warmup",
        "est_timeout",
        "vip_bind_dev",
        "nat_mask",
    ]),
];

/// Sluice's own; the fork has the bare word, and its settings for all services as sysctls.
const SYN_PROXY: &[Group] =
    &[used(&["mss", "wscale", "sack", "timestamps", "defer", "syn_retry", "ack_storm", "conn_reuse"])];

const REAL_SERVER: &[Group] = &[
    used(&["weight", "lvs_method", "inhibit_on_failure", "uthreshold", "lthreshold"]),
    Group { body: Nothing, support: Accepted, names: &["delay_loop"] },
    idle(&[
        "notify_up",
        "notify_down",
        "alpha",
        "retry",
        "delay_before_retry",
        "warmup",
        "connect_timeout",
        "smtp_alert",
        "virtualhost",
        "snmp_name",
    ]),
    maybe(Context::TcpCheck, &["TCP_CHECK"]),
    maybe(Context::HttpGet, &["HTTP_GET", "SSL_GET"]),
    maybe(Context::SmtpCheck, &["SMTP_CHECK"]),
    maybe(Context::DnsCheck, &["DNS_CHECK"]),
    maybe(Context::UdpCheck, &["UDP_CHECK"]),
    maybe(Context::PingCheck, &["PING_CHECK"]),
    maybe(Context::MiscCheck, &["MISC_CHECK"]),
    maybe(Context::FileCheck, &["FILE_CHECK"]),
    maybe(Context::BfdCheck, &["BFD_CHECK"]),
];

const fn maybe(context: Context, names: &'static [&'static str]) -> Group {
    Group { body: Maybe(context), support: NoEffect, names }
}

/// How a checker connects.
const CONNECTION: Group =
    idle(&["connect_ip", "connect_port", "bindto", "bind_port", "bind_if", "connect_timeout", "fwmark"]);

/// When a checker runs and gives up. `nb_get_retry` is the old name of `retry`.
const PACE: Group =
    idle(&["retry", "nb_get_retry", "delay_before_retry", "warmup", "delay_loop", "alpha", "log_all_failures"]);

const CONNECTION_CHECK: &[Group] = &[CONNECTION, PACE];

const HTTP_GET: &[Group] = &[
    CONNECTION,
    PACE,
    idle(&["virtualhost", "http_protocol", "enable_sni", "sni_name", "fast_recovery", "tls_compliant"]),
    idle_block(Context::Url, &["url"]),
];

const URL: &[Group] = &[idle(&[
    "path",
    "digest",
    "status_code",
    "virtualhost",
    "regex",
    "regex_no_match",
    "regex_options",
    "regex_stack",
    "regex_min_offset",
    "regex_max_offset",
    "tls_compliant",
])];

const SMTP_CHECK: &[Group] = &[CONNECTION, PACE, idle(&["helo_name"]), idle_block(Context::SmtpHost, &["host"])];

const SMTP_HOST: &[Group] = &[CONNECTION];

const DNS_CHECK: &[Group] = &[CONNECTION, PACE, idle(&["type", "name"])];

const UDP_CHECK: &[Group] =
    &[CONNECTION, PACE, idle(&["payload", "require_reply", "min_reply_length", "max_reply_length"])];

const MISC_CHECK: &[Group] = &[PACE, idle(&["misc_path", "misc_timeout", "misc_dynamic", "user"])];

const FILE_CHECK: &[Group] = &[PACE, idle(&["track_file", "weight", "dynamic"])];

const BFD_CHECK: &[Group] = &[idle(&["name", "alpha"])];

const DATAPLANE: &[Group] = &[
    used(&[
        "workers",
        "idle",
        "connections",
        "connections6",
        "extensions",
        "sloppy_tcp",
        "local_ports",
        "expire_quiescent_template",
        "kernel_port",
        "expire_nodest_conn",
        "conn_reuse_mode",
    ]),
    used(&["sloppy_sctp"]),
    used(&["defence_tcp_drop", "defence_udp_drop", "defence_frag_drop", "deny_established", "source_rate"]),
    used_block(Lines, &["rules"]),
    used_block(Context::DataplaneInterface, &["interface"]),
    used_block(Context::DataplaneTimeouts, &["timeouts"]),
];

const DATAPLANE_INTERFACE: &[Group] = &[used(&["queues", "mode", "copy", "checksum", "busy_poll"])];
