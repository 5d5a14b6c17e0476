//! The block `virtual_server`: heading, scheduler, method, protocol and real servers.
//!
//! What a block leaves out gets what keepalived gives it, with a warning that says so.

use dataplane::ident::{Endpoint, NetPort, Protocol, ServiceKey, Weight};
use dataplane::service::{
    AccessLists, AddressFamily, ConnectionLimits, Datagrams, Encapsulation, Ftp, MatchPoint, MssClamp, ServiceName,
};
use dataplane::syn_proxy::SynProxy;
use ipnet::IpNet;

use super::block::Statement;
use super::diagnostics::Diagnostic;
use super::ftp;
use super::heading::{self, Heading};
use super::lexer::Word;
use super::limits;
use super::local_addresses::LocalGroups;
use super::lower::{Lower, shown};
use super::match_points::MatchPoints;
use super::method;
use super::model::{ForwardingMethod, RealServer, VirtualServer};
use super::mss_clamp;
use super::persistence::PersistenceSaid;
use super::prefix_list::PrefixLists;
use super::real_server::{self, RealServers};
use super::scheduler::{self, Scheduling};
use super::sorry_server::SorrySaid;
use super::syn_proxy;
use super::towards_servers;
use super::tunnel;
use super::virtual_server_group::Groups;

/// The virtual servers so far.
#[derive(Default)]
pub(super) struct VirtualServers {
    servers: Vec<VirtualServer>,
    groups: Groups,
    lists: PrefixLists,
    seen: MatchPoints,
    /// The groups of local addresses that they may name.
    pub(super) local_groups: LocalGroups,
}

/// What the statements of a block say, before defaults.
struct Settings<'s> {
    scheduling: Scheduling,
    method: Option<(ForwardingMethod, Encapsulation)>,
    tunnel_sources: Vec<IpNet>,
    protocol: Option<Protocol>,
    weight: Weight,
    inhibit_on_failure: bool,
    persistence: PersistenceSaid,
    sorry: SorrySaid<'s>,
    family: Option<AddressFamily>,
    access: AccessLists,
    mss_clamp: MssClamp,
    ftp: Ftp,
    syn_proxy: Option<SynProxy>,
    datagrams: Datagrams,
    limits: ConnectionLimits,
    drain: bool,
    /// What was said and not understood: no default and no warning about it.
    said: Said,
}

#[derive(Default)]
struct Said {
    method: bool,
    protocol: bool,
}

impl VirtualServers {
    /// None so far, with the groups that they may name.
    pub(super) fn new(groups: Groups) -> Self {
        Self { groups, ..Self::default() }
    }

    /// Lowers one block.
    pub(super) fn lower(&mut self, lower: &mut Lower<'_>, block: &Statement) {
        let heading = heading::lower(lower, block, &self.groups);
        let settings = settings(lower, block, &mut self.lists);
        let at = heading.as_ref().map(|heading| heading.facing(settings.family));
        let (method, encapsulation) = settings.method.unwrap_or((ForwardingMethod::Nat, Encapsulation::Ipip));
        let mut towards = towards_servers::Said::default();
        for statement in block.inner() {
            towards.lower(lower, statement);
        }
        let defaults = real_server::Defaults {
            service: at,
            method,
            encapsulation,
            weight: settings.weight,
            inhibit_on_failure: settings.inhibit_on_failure,
        };
        let mut real_servers = RealServers::default();
        for statement in block.inner().iter().filter(|inner| inner.name() == "real_server") {
            real_servers.lower(lower, statement, &defaults);
        }
        let Some(heading) = heading else { return };
        warn_of_defaults(lower, block, &heading, &settings);
        let protocol = settings.protocol.unwrap_or(Protocol::Udp);
        let name = heading.name(protocol, settings.family);
        let points = heading.points(protocol, settings.family);
        if self.twice(lower, block, &name, &points) {
            return;
        }
        let real_servers = real_servers.finish();
        check_mixed(lower, block, &heading, &real_servers);
        check_sctp(lower, block, protocol, &real_servers);
        if real_servers.is_empty() && !block.inner().iter().any(|inner| inner.name() == "real_server") {
            lower.warning(block.span(), format!("{name} has no real servers"), "ignored, as keepalived does");
            return;
        }
        if let Some(statement) = block.inner().iter().rfind(|inner| inner.name() == "syn_proxy") {
            syn_proxy::check(lower, statement, name.protocol(), &real_servers);
            syn_proxy::check_families(lower, statement, &points, &real_servers);
        }
        let scheduler = settings.scheduling.kind();
        let locals = self.local_groups.of(lower, block, &points, &real_servers);
        let datagrams = datagrams(lower, block, (&name, &real_servers), settings.datagrams);
        let towards = towards.finish(lower, protocol, method, &real_servers);
        let persistence = settings.persistence.finish(lower, &points);
        let sorry_server = settings.sorry.finish(lower, &defaults);
        self.servers.push(VirtualServer {
            name,
            points,
            scheduler,
            method,
            encapsulation,
            tunnel_sources: settings.tunnel_sources,
            mss_clamp: settings.mss_clamp,
            syn_proxy: settings.syn_proxy,
            towards,
            locals,
            datagrams,
            limits: settings.limits,
            drain: settings.drain,
            persistence,
            sorry_server,
            ftp: settings.ftp,
            access: settings.access,
            real_servers,
            place: lower.place(block.head()),
        });
    }

    /// All of them, in the order of the file.
    pub(super) fn finish(self) -> Vec<VirtualServer> {
        self.servers
    }

    fn twice(&mut self, lower: &mut Lower<'_>, block: &Statement, name: &ServiceName, points: &[MatchPoint]) -> bool {
        let place = lower.place(block.head());
        for point in points {
            let Err(first) = self.seen.add(*point, &place) else { continue };
            let message = match name {
                ServiceName::Address(_) => format!("the virtual server {name} stands twice"),
                _ if first == place => format!("{point} stands twice in {name}"),
                _ => format!("{point} of {name} belongs to another virtual server too"),
            };
            lower.report.push(
                Diagnostic::error(block.span(), message)
                    .label(format!("first at {first}"))
                    .help("put all its real servers in one block"),
            );
            return true;
        }
        false
    }
}

/// A group of both families needs real servers that take both.
fn check_mixed(lower: &mut Lower<'_>, block: &Statement, heading: &Heading, real_servers: &[RealServer]) {
    let Heading::Group { name, is_mixed: true, .. } = heading else { return };
    if let Some(server) = real_servers.iter().find(|server| server.method != ForwardingMethod::Tun) {
        lower.report.push(
            Diagnostic::error(block.span(), format!("the group {name} has addresses of both families"))
                .label(format!("{} cannot take packets of both", server.at))
                .help("only TUN can; or make two groups"),
        );
    }
}

/// `ADDRESS [PORT]`; no port, or 0, is every port.
pub(super) fn endpoint(lower: &mut Lower<'_>, words: &[Word]) -> Option<Endpoint> {
    let address = words.first().and_then(|word| {
        let address = lower.address(word)?;
        if address.is_unspecified() || address.is_multicast() {
            let message = format!("`{}` is no address of one host", word.text);
            lower.error(word.span, message, "expected a unicast address");
            return None;
        }
        Some(address)
    });
    let port = match words.get(1) {
        None => Some(NetPort::ANY),
        Some(word) => lower.number(word, 0..=65_535, "port").map(|port| NetPort::new(port as u16)),
    };
    Some(Endpoint { address: address?, port: port? })
}

fn settings<'s>(lower: &mut Lower<'_>, block: &'s Statement, lists: &mut PrefixLists) -> Settings<'s> {
    let mut settings = Settings {
        scheduling: Scheduling::default(),
        method: None,
        tunnel_sources: Vec::new(),
        protocol: None,
        weight: Weight::ONE,
        inhibit_on_failure: false,
        persistence: PersistenceSaid::default(),
        sorry: SorrySaid::default(),
        family: None,
        access: AccessLists::default(),
        mss_clamp: MssClamp::default(),
        ftp: Ftp::default(),
        syn_proxy: None,
        datagrams: Datagrams::default(),
        limits: ConnectionLimits::default(),
        drain: false,
        said: Said::default(),
    };
    for statement in block.inner() {
        let Some(keyword) = statement.keyword else { continue };
        lower.no_effect(statement);
        match keyword.name {
            "lvs_sched" | "lb_algo" => settings.scheduling.lower(lower, statement),
            "mh-port" | "mh-fallback" | "sh-port" | "sh-fallback" | "flag-1" | "flag-2" | "flag-3" => {
                settings.scheduling.flag(lower, statement);
            }
            "lvs_method" | "lb_kind" => {
                settings.said.method = true;
                settings.method = method::lower(lower, statement);
            }
            "protocol" => {
                settings.said.protocol = true;
                settings.protocol = protocol(lower, statement);
            }
            "weight" => settings.weight = weight(lower, statement),
            "inhibit_on_failure" => settings.inhibit_on_failure = lower.switch(statement),
            "tunnel_source" => settings.tunnel_sources = tunnel::sources(lower, statement),
            "ops" if lower.switch(statement) => settings.datagrams = Datagrams::OneByOne,
            "connection_limit" => settings.limits.flows = limits::limit(lower, statement),
            "connection_rate" => settings.limits.rate = limits::limit(lower, statement),
            "drain" => settings.drain = lower.switch(statement),
            "mss_clamp" => settings.mss_clamp = mss_clamp::lower(lower, statement),
            "ftp" => settings.ftp = ftp::lower(lower, statement),
            "blocklist" => settings.access.blocked = lists.lower(lower, statement),
            "allowlist" => settings.access.allowed = lists.lower(lower, statement),
            "ip_family" => settings.family = family(lower, statement),
            "persistence_timeout" | "persistence_granularity" => settings.persistence.lower(lower, statement),
            "sorry_server" | "sorry_server_inhibit" | "sorry_server_lvs_method" => {
                settings.sorry.lower(lower, statement);
            }
            "syn_proxy" => settings.syn_proxy = Some(syn_proxy::lower(lower, statement)),
            _ => {}
        }
    }
    settings
}

fn family(lower: &mut Lower<'_>, statement: &Statement) -> Option<AddressFamily> {
    let word = lower.one(statement, "inet or inet6")?;
    lower.choice(word, "address family", &[("inet", AddressFamily::V4), ("inet6", AddressFamily::V6)])
}

fn warn_of_defaults(lower: &mut Lower<'_>, block: &Statement, heading: &Heading, settings: &Settings<'_>) {
    let said = &settings.said;
    let is_mark = matches!(heading, Heading::Mark(_));
    let at = match heading {
        Heading::Address(at) => at.to_string(),
        Heading::Mark(mark) => format!("fwmark {mark}"),
        Heading::Group { name, .. } => format!("group {name}"),
    };
    if is_mark && said.protocol {
        lower.warning(block.span(), format!("{at} names a `protocol`"), "ignored: a mark is for every protocol");
    }
    if !said.protocol && !is_mark {
        lower.report.push(
            Diagnostic::warning(block.span(), format!("{at} names no `protocol`"))
                .label("UDP, as in keepalived")
                .help("add `protocol TCP` or `protocol UDP`"),
        );
    }
    if !settings.scheduling.is_said() {
        lower.report.push(
            Diagnostic::warning(block.span(), format!("{at} names no `lb_algo`"))
                .label("wlc, as in keepalived")
                .help(format!("add `lb_algo` and {}", scheduler::names())),
        );
    }
    if !said.method {
        lower.report.push(
            Diagnostic::warning(block.span(), format!("{at} names no `lb_kind`"))
                .label("NAT, as in keepalived")
                .help("add `lb_kind NAT`, `lb_kind DR` or `lb_kind TUN`"),
        );
    }
    let has_every_port = matches!(heading, Heading::Address(at) if at.port.is_any());
    if has_every_port && !settings.persistence.is_said() {
        lower.warning(block.span(), format!("{at} has every port"), "made persistent for 360 s, as keepalived does");
    }
}

/// What `ops` comes to: of a service of one transport, only UDP knows it; FULLNAT needs a flow for its local port.
fn datagrams(
    lower: &mut Lower<'_>,
    block: &Statement,
    (name, servers): (&ServiceName, &[RealServer]),
    said: Datagrams,
) -> Datagrams {
    let protocol = match name {
        ServiceName::Address(ServiceKey { protocol, .. }) | ServiceName::Group { protocol, .. } => *protocol,
        ServiceName::Mark { .. } => Protocol::Udp,
    };
    let reason = if protocol != Protocol::Udp {
        format!("`ops` does nothing in a service of {protocol}")
    } else if servers.iter().any(|server| server.method == ForwardingMethod::FullNat) {
        "`ops` does nothing in a service with FULLNAT".to_owned()
    } else {
        return said;
    };
    if said == Datagrams::OneByOne {
        let statement = block.inner().iter().find(|statement| statement.name() == "ops");
        lower.warning(
            statement.map_or(block.span(), Statement::head),
            reason,
            "ignored: it needs UDP by NAT, DR or TUN",
        );
    }
    Datagrams::ByFlow
}

fn protocol(lower: &mut Lower<'_>, statement: &Statement) -> Option<Protocol> {
    let word = lower.one(statement, "a protocol")?;
    match word.text.to_ascii_uppercase().as_str() {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => {
            let message = format!("`{}` is no protocol", shown(&word.text));
            lower.error(word.span, message, "expected TCP, UDP or SCTP");
            None
        }
    }
}

/// SCTP ends have addresses inside their packets too, which FULLNAT would have to be known by.
fn check_sctp(lower: &mut Lower<'_>, block: &Statement, protocol: Protocol, servers: &[RealServer]) {
    let is_fullnat = |server: &&RealServer| server.method == ForwardingMethod::FullNat;
    if let (Protocol::Sctp, Some(server)) = (protocol, servers.iter().find(is_fullnat)) {
        let message = format!("{} cannot be reached by FULLNAT with SCTP", server.at);
        lower.error(block.span(), message, "SCTP goes by NAT, DR or TUN");
    }
}

/// A weight; 1 where it is wrong.
pub(super) fn weight(lower: &mut Lower<'_>, statement: &Statement) -> Weight {
    lower
        .one(statement, "a weight")
        .and_then(|word| lower.number(word, 0..=u64::from(Weight::MAX), "weight"))
        .and_then(|value| Weight::new(value as u32))
        .unwrap_or(Weight::ONE)
}
