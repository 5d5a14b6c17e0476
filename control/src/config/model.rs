//! What a configuration means: the typed result that everything after the parser works with.
//!
//! A [`Config`] is complete and consistent: numbers are in range, no service or real server stands twice, and every
//! default that does not depend on the machine is filled in. What depends on the machine is an `Option`.

use std::time::Duration;

use dataplane::flow::Capacity;
use dataplane::ident::{CoreIndex, Endpoint, NetPort, Protocol, Weight};
use dataplane::rules::{Rate, Rule, Scope};
use dataplane::sched::SchedulerKind;
use dataplane::service::{
    AccessLists, ClientAddress, ConnectionLimits, Datagrams, Encapsulation, ExpireReset, Ftp, LocalPorts, MatchPoint,
    MssClamp, Persistence, ServiceName, TcpTimestamps, Thresholds,
};
use dataplane::snapshot::{Defence, PortReuse, QuiescentTemplates};
use dataplane::syn_proxy::SynProxy;
use ipnet::IpNet;

use super::source::Place;

/// A whole configuration, of one or several files.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// The blocks `global_defs`.
    pub global: GlobalDefs,
    /// The blocks `static_ipaddress`, in the order of the file.
    pub static_addresses: Vec<StaticAddress>,
    /// The virtual servers, in the order of the file; no name occurs twice.
    pub virtual_servers: Vec<VirtualServer>,
    /// The block `dataplane`, or its defaults.
    pub dataplane: DataplaneConfig,
}

/// What is used of `global_defs`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GlobalDefs {
    /// `router_id`: the name of this director. None: the host name.
    pub router_id: Option<String>,
}

/// One address that the director adds to an interface while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticAddress {
    /// The address with its prefix length; /32 or /128 where the file names none.
    pub address: IpNet,
    /// `dev`: the interface; `default_interface` or, as in keepalived, eth0 where the file names none.
    pub dev: String,
    /// `brd`: the broadcast address.
    pub broadcast: Broadcast,
    /// `scope`, as the kernel's number: 0 global, 200 site, 253 link, 254 host.
    pub scope: u8,
    /// `label`, at most 15 bytes.
    pub label: Option<String>,
    /// `peer`: the other end of a point-to-point link.
    pub peer: Option<IpNet>,
    /// `preferred_lft`. None: for ever.
    pub preferred_lifetime: Option<Duration>,
    /// `home`, `-nodad`, `noprefixroute`.
    pub flags: AddressFlags,
    /// Where the line stands.
    pub place: Place,
}

/// Switches of an address line, each off by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AddressFlags {
    /// `-nodad`: use an IPv6 address without duplicate address detection (`IFA_F_NODAD`).
    pub nodad: bool,
    /// `noprefixroute`: the kernel adds no route for the prefix (`IFA_F_NOPREFIXROUTE`).
    pub noprefixroute: bool,
    /// `home`: a mobile IPv6 home address (`IFA_F_HOMEADDRESS`).
    pub home: bool,
}

/// The broadcast address of a static address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Broadcast {
    /// None is set.
    #[default]
    Unset,
    /// `brd +`: the last address of the prefix.
    Last,
    /// `brd -`: the first address of the prefix.
    First,
    /// `brd ADDRESS`.
    Address(std::net::Ipv4Addr),
}

/// One `virtual_server` block with its address, port and protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualServer {
    /// What names it.
    pub name: ServiceName,
    /// What packets find it by, at least one; none of another virtual server overlaps with it.
    pub points: Vec<MatchPoint>,
    /// `lb_algo`, `lvs_sched`; wlc where the file names none.
    pub scheduler: SchedulerKind,
    /// `lb_kind`, `lvs_method`: what a real server gets that names no method of its own.
    pub method: ForwardingMethod,
    /// `lb_kind TUN type …`: what a real server's tunnel is that names no method of its own.
    pub encapsulation: Encapsulation,
    /// `tunnel_source`: prefixes that outer source addresses are taken from, at most one of each family.
    pub tunnel_sources: Vec<IpNet>,
    /// `mss_clamp`: what becomes of the MSS that clients and servers announce.
    pub mss_clamp: MssClamp,
    /// `syn_proxy`: clients are answered by cookies before a server is asked. Only with TCP, NAT and FULLNAT.
    pub syn_proxy: Option<SynProxy>,
    /// `toa`, `proxy_protocol`, `tcp_timestamps`, `expire_rst`.
    pub towards: TowardsServers,
    /// `laddr_group_name`: the addresses that FULLNAT connections come from, each once, in the order of the file.
    pub locals: Vec<LocalAddress>,
    /// `ops`: whether datagrams form flows; only UDP.
    pub datagrams: Datagrams,
    /// `connection_limit`, `connection_rate`.
    pub limits: ConnectionLimits,
    /// `drain`: connections to a removed real server are forwarded to their end.
    pub drain: bool,
    /// `persistence_timeout`, `persistence_granularity`; always for a service of every port.
    pub persistence: Option<Persistence>,
    /// `sorry_server` with its settings.
    pub sorry_server: Option<SorryServer>,
    /// `ftp`: whether its connections are of FTP; by their port where the file does not say.
    pub ftp: Ftp,
    /// `blocklist` and `allowlist`.
    pub access: AccessLists,
    /// The real servers, in the order of the file; no endpoint occurs twice.
    pub real_servers: Vec<RealServer>,
    /// Where the block's heading stands.
    pub place: Place,
}

/// How connections look to real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TowardsServers {
    /// `toa`, `proxy_protocol`: how FULLNAT servers learn their clients' addresses. The option where the file names
    /// neither.
    pub client_address: ClientAddress,
    /// `tcp_timestamps`.
    pub tcp_timestamps: TcpTimestamps,
    /// `expire_rst`; on under FULLNAT where the file says nothing.
    pub expire_reset: ExpireReset,
}

/// An address of a `local_address_group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address.
    pub address: std::net::IpAddr,
    /// The interface that it belongs to; `None`: the one whose network has it, else the one that leads to the servers.
    pub dev: Option<String>,
    /// Where its line stands.
    pub place: Place,
}

/// One `real_server` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServer {
    /// Address and port. The port is the service's for DR and TUN, and where the file names none.
    pub at: Endpoint,
    /// `weight`; 1, or the virtual server's, where the file names none.
    pub weight: Weight,
    /// Its own method or that of the virtual server.
    pub method: ForwardingMethod,
    /// The form of its tunnel, where its method is TUN.
    pub encapsulation: Encapsulation,
    /// `uthreshold` and `lthreshold`; the lower one is not above the upper one.
    pub thresholds: Thresholds,
    /// `inhibit_on_failure`: on failure set the weight to 0 instead of removing the server.
    pub inhibit_on_failure: bool,
    /// Where the block's heading stands.
    pub place: Place,
}

impl VirtualServer {
    /// Whether a match point of it is of FTP, whose data connections come to other ports of the same addresses: under
    /// NAT and FULLNAT because they are announced, under DR and TUN where clients stay with their servers.
    pub fn has_data_beside(&self, protocol: Protocol, port: NetPort) -> bool {
        let is_ftp = match self.ftp {
            Ftp::ByPort => port == NetPort::FTP,
            Ftp::On => true,
            Ftp::Off => return false,
        };
        let is_two_way =
            self.all_servers().any(|server| matches!(server.method, ForwardingMethod::Nat | ForwardingMethod::FullNat));
        protocol == Protocol::Tcp && is_ftp && (is_two_way || (self.persistence.is_some() && port == NetPort::FTP))
    }

    /// The real servers and the sorry server.
    pub fn all_servers(&self) -> impl Iterator<Item = &RealServer> {
        self.real_servers.iter().chain(self.sorry_server.iter().map(|sorry| &sorry.server))
    }
}

/// `sorry_server` of a virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SorryServer {
    /// The server; its weight is 1.
    pub server: RealServer,
    /// `sorry_server_inhibit`: while it is not needed it stays in the service with weight 0, so that its connections go
    /// on to their end.
    pub inhibit: bool,
}

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardingMethod {
    /// Rewrite the destination; replies pass the director.
    Nat,
    /// Rewrite only the Ethernet address; the server answers the client itself.
    Dr,
    /// Wrap in an outer packet; the server answers the client itself.
    Tun,
    /// Rewrite both ends; replies pass the director, wherever the servers are.
    FullNat,
}

/// The block `dataplane`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataplaneConfig {
    /// `workers`. None: derived from the queues and cores.
    pub workers: Option<Workers>,
    /// `idle`: what a worker does without packets.
    pub idle: Idle,
    /// `connections`: IPv4 flows that fit, 1 to 2^30.
    pub connections: u32,
    /// `connections6`: IPv6 flows that fit, 1 to 2^30; a quarter of `connections` where the file names none.
    pub connections6: u32,
    /// `extensions`: flows of each family whose sequence numbers can be moved, 0 to 2^30. None: a quarter of all.
    pub extensions: Option<u32>,
    /// `sloppy_tcp`: a TCP segment other than SYN may open a flow.
    pub sloppy_tcp: bool,
    /// `local_ports`: the ports that FULLNAT connections come from.
    pub local_ports: LocalPorts,
    /// `expire_nodest_conn`: flows of a removed real server end at their next packet.
    pub expire_nodest_conn: bool,
    /// `conn_reuse_mode`: which connections a SYN from the same port replaces.
    pub conn_reuse_mode: PortReuse,
    /// `sloppy_sctp`: an SCTP packet other than INIT may open a flow.
    pub sloppy_sctp: bool,
    /// `expire_quiescent_template`: clients of a server of weight 0 get another at their next connection.
    pub quiescent_templates: QuiescentTemplates,
    /// `defence_tcp_drop`, `defence_udp_drop` and `defence_frag_drop`.
    pub defence: Defence,
    /// The blocks `rules`, in the order of the file.
    pub rules: Vec<Rule>,
    /// `deny_established`: whether rules are also read for packets of flows.
    pub rule_scope: Scope,
    /// `source_rate`: new flows a second of each source.
    pub source_rate: Option<Rate>,
    /// `timeouts`, and under it `lvs_timeouts` of `global_defs`.
    pub timeouts: TimeoutOverrides,
    /// The `interface` blocks, no name twice. Empty: derived from VIPs and the routes to real servers.
    pub interfaces: Vec<InterfaceConfig>,
    /// `kernel_port`. None: `kernel_port off`.
    pub kernel_port: Option<KernelPort>,
}

impl DataplaneConfig {
    /// `connections` where the file names none.
    pub const CONNECTIONS: u32 = 1_048_576;

    /// What the tables of IPv4 and IPv6 flows have room for.
    pub fn capacities(&self) -> [Capacity; 2] {
        [self.connections, self.connections6].map(|flows| match self.extensions {
            Some(extensions) => Capacity { flows, extensions: extensions.min(flows) },
            None => Capacity::from(flows),
        })
    }
}

impl Default for DataplaneConfig {
    fn default() -> Self {
        Self {
            workers: None,
            idle: Idle::default(),
            connections: Self::CONNECTIONS,
            connections6: Self::CONNECTIONS / 4,
            extensions: None,
            sloppy_tcp: false,
            local_ports: LocalPorts::default(),
            expire_nodest_conn: false,
            conn_reuse_mode: PortReuse::default(),
            sloppy_sctp: false,
            quiescent_templates: QuiescentTemplates::default(),
            defence: Defence::default(),
            rules: Vec::new(),
            rule_scope: Scope::default(),
            source_rate: None,
            timeouts: TimeoutOverrides::default(),
            interfaces: Vec::new(),
            kernel_port: Some(KernelPort::default()),
        }
    }
}

/// `workers N [cores …]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many, 1 to [`dataplane::ident::MAX_WORKERS`].
    pub count: usize,
    /// The core of each worker, `count` of them without repetition; empty: chosen by the director.
    pub cores: Vec<CoreIndex>,
}

/// What a worker does when its queues are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Idle {
    /// Spin for ever.
    Busy,
    /// Spin for a while, then sleep.
    #[default]
    Adaptive,
    /// Sleep at once.
    Sleep,
}

/// Idle times after which flows end, as `ipvsadm --set` has them; whole seconds. None: the default of IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TimeoutOverrides {
    /// An established TCP connection.
    pub tcp: Option<Duration>,
    /// A TCP connection after a FIN.
    pub tcpfin: Option<Duration>,
    /// A UDP flow.
    pub udp: Option<Duration>,
}

/// `interface NAME { … }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// The interface, 1 to 15 bytes.
    pub name: String,
    /// `queues`.
    pub queues: Queues,
    /// `mode`: where the XDP program runs.
    pub mode: XdpMode,
    /// `copy`: whether frames are copied between the driver and the frame pool.
    pub copy: CopyMode,
    /// `checksum`: what received transport checksums hold.
    pub checksum: ChecksumPolicy,
    /// `busy_poll`. None: off.
    pub busy_poll: Option<BusyPoll>,
    /// Where the block's heading stands.
    pub place: Place,
}

/// How many receive queues of an interface the director serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Queues {
    /// As many as it has.
    #[default]
    All,
    /// The interface is to be set to this many, 1 to 1024.
    Count(u32),
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum XdpMode {
    /// Native, else generic with a warning.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// After the kernel made its packet buffer: works with every driver, slowly.
    Generic,
}

/// Whether frames are copied between the driver and the frame pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CopyMode {
    /// Zero-copy where the driver can.
    #[default]
    Auto,
    /// Always copied.
    Copy,
    /// Zero-copy, or not at all.
    ZeroCopy,
}

/// What the transport checksums of received frames hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ChecksumPolicy {
    /// By the driver: full on veth and the like, offload on hardware.
    #[default]
    Auto,
    /// Whole checksums that the hardware verified.
    Offload,
    /// Maybe only the pseudo-header's sum: verify or complete every one.
    Full,
}

/// `busy_poll on [budget N]` (`SO_PREFER_BUSY_POLL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// Packets a pass (`SO_BUSY_POLL_BUDGET`), 1 to 65535.
    pub budget: u16,
}

impl Default for BusyPoll {
    fn default() -> Self {
        Self { budget: 64 }
    }
}

/// `kernel_port on [rate N]`: the way of packets that the kernel has to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelPort {
    /// Most packets a second that go to the kernel, 1 to 2^32 - 1.
    pub rate: u32,
}

impl Default for KernelPort {
    fn default() -> Self {
        Self { rate: 100_000 }
    }
}
