//! Sluice's own block `dataplane`: workers, capacity, interfaces and the kernel port.
//!
//! Unlike keepalived's statements, those here may share a line: `interface eth0 { queues 2 mode native }`.

use dataplane::ident::{CoreIndex, MAX_WORKERS};
use dataplane::rules::{Rate, Scope, SourceLimit};
use dataplane::service::LocalPorts;
use dataplane::snapshot::{Defended, PortReuse, QuiescentTemplates};

use super::block::Statement;
use super::diagnostics::Diagnostic;
use super::lexer::Word;
use super::lower::{Lower, shown};
use super::model::{
    BusyPoll, ChecksumPolicy, CopyMode, DataplaneConfig, Idle, InterfaceConfig, KernelPort, Queues, TimeoutOverrides,
    Workers, XdpMode,
};
use super::rules;
use super::static_ipaddress::interface_name;
use super::timeouts;

/// Most flows of one family.
const MOST_CONNECTIONS: u64 = 1 << 30;
/// Most cores of a machine (`CONFIG_NR_CPUS`).
const MOST_CORES: u64 = 8192;

/// The words of a statement, taken one by one.
struct Settings<'w> {
    words: std::iter::Peekable<std::slice::Iter<'w, Word>>,
}

impl<'w> Settings<'w> {
    fn new(words: &'w [Word]) -> Self {
        Self { words: words.iter().peekable() }
    }

    /// The value after a keyword; an error if there is none.
    fn value(&mut self, lower: &mut Lower<'_>, after: &Word, expected: &str) -> Option<&'w Word> {
        let value = self.words.next();
        if value.is_none() {
            let message = format!("`{}` needs {expected}", after.text);
            lower.error(after.span, message, format!("expected {expected} after this"));
        }
        value
    }

    fn number(
        &mut self,
        lower: &mut Lower<'_>,
        after: &Word,
        range: std::ops::RangeInclusive<u64>,
        what: &str,
    ) -> Option<u64> {
        let word = self.value(lower, after, &format!("a {what}"))?;
        lower.number(word, range, what)
    }

    /// `word`, if it stands next.
    fn optional(&mut self, word: &str) -> Option<&'w Word> {
        self.words.next_if(|next| next.text == word)
    }

    fn choice<T: Copy>(
        &mut self,
        lower: &mut Lower<'_>,
        after: &Word,
        what: &str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let word = self.value(lower, after, &format!("a {what}"))?;
        lower.choice(word, what, choices)
    }
}

/// Lowers the one block; a second is an error. `timeouts` are those of `global_defs`.
pub(super) fn lower<'s>(
    lower: &mut Lower<'_>,
    blocks: impl Iterator<Item = &'s Statement>,
    timeouts: TimeoutOverrides,
) -> DataplaneConfig {
    let mut config = DataplaneConfig { timeouts, ..DataplaneConfig::default() };
    let mut connections6 = None;
    let mut first: Option<&Statement> = None;
    for block in blocks {
        if let Some(first) = first {
            let label = format!("first at {}", lower.place(first.head()));
            lower.error(block.span(), "the block `dataplane` stands twice", label);
            continue;
        }
        first = Some(block);
        lower.extra(block, 0);
        for statement in block.inner() {
            match statement.name() {
                "interface" => interface(lower, statement, &mut config.interfaces),
                "timeouts" => {
                    lower.extra(statement, 0);
                    for line in statement.inner() {
                        timeouts::lower(lower, line, &line.words, &mut config.timeouts);
                    }
                }
                "rules" => rules::lower(lower, statement, &mut config.rules),
                _ if statement.keyword.is_some() => general(lower, statement, &mut config, &mut connections6),
                _ => {}
            }
        }
    }
    config.connections6 = connections6.unwrap_or((config.connections / 4).max(1));
    config
}

fn general(lower: &mut Lower<'_>, statement: &Statement, config: &mut DataplaneConfig, connections6: &mut Option<u32>) {
    let mut settings = Settings::new(&statement.words);
    while let Some(word) = settings.words.next() {
        match word.text.as_str() {
            "workers" => config.workers = workers(lower, word, &mut settings),
            "idle" => {
                let choices = [("busy", Idle::Busy), ("adaptive", Idle::Adaptive), ("sleep", Idle::Sleep)];
                config.idle = settings.choice(lower, word, "way to idle", &choices).unwrap_or_default();
            }
            "connections" => {
                if let Some(number) = connections(lower, word, &mut settings) {
                    config.connections = number;
                }
            }
            "connections6" => *connections6 = connections(lower, word, &mut settings),
            "extensions" => {
                let number = settings.number(lower, word, 0..=MOST_CONNECTIONS, "number of connections");
                config.extensions = number.and_then(|number| u32::try_from(number).ok());
            }
            "sloppy_sctp" => config.sloppy_sctp = settings.value(lower, word, ON_OFF).is_some_and(|w| lower.boolean(w)),
            "sloppy_tcp" => config.sloppy_tcp = settings.value(lower, word, ON_OFF).is_some_and(|w| lower.boolean(w)),
            "local_ports" => config.local_ports = local_ports(lower, word, &mut settings).unwrap_or_default(),
            "expire_nodest_conn" => {
                config.expire_nodest_conn = settings.value(lower, word, ON_OFF).is_some_and(|w| lower.boolean(w));
            }
            "conn_reuse_mode" => config.conn_reuse_mode = port_reuse(lower, word, &mut settings),
            "expire_quiescent_template" => {
                let is_on = settings.value(lower, word, ON_OFF).is_some_and(|w| lower.boolean(w));
                config.quiescent_templates =
                    if is_on { QuiescentTemplates::Reschedule } else { QuiescentTemplates::Keep };
            }
            "defence_tcp_drop" => config.defence.tcp = defended(lower, word, &mut settings),
            "defence_udp_drop" => config.defence.udp = defended(lower, word, &mut settings),
            "defence_frag_drop" => config.defence.fragments = defended(lower, word, &mut settings),
            "deny_established" => {
                let is_on = settings.value(lower, word, ON_OFF).is_some_and(|w| lower.boolean(w));
                config.rule_scope = if is_on { Scope::Established } else { Scope::NewFlows };
            }
            "source_rate" => config.source_rate = source_rate(lower, word, &mut settings),
            "kernel_port" => config.kernel_port = kernel_port(lower, word, &mut settings),
            _ => return unknown(lower, word, "`dataplane`"),
        }
    }
}

/// The bits of IPVS's sysctl of this name.
fn port_reuse(lower: &mut Lower<'_>, word: &Word, settings: &mut Settings<'_>) -> PortReuse {
    match settings.number(lower, word, 0..=3, "mode") {
        Some(0) => PortReuse::Keep,
        Some(2 | 3) => PortReuse::ClosedOrFinished,
        _ => PortReuse::Closed,
    }
}

/// What a switch takes.
const ON_OFF: &str = "on or off";

fn defended(lower: &mut Lower<'_>, word: &Word, settings: &mut Settings<'_>) -> Defended {
    let is_on = settings.value(lower, word, ON_OFF).is_some_and(|value| lower.boolean(value));
    if is_on { Defended::On } else { Defended::Off }
}

/// `source_rate N [burst M]`; without a burst that of a second.
fn source_rate(lower: &mut Lower<'_>, word: &Word, settings: &mut Settings<'_>) -> Option<Rate> {
    let range = || 1..=u64::from(SourceLimit::MAX);
    let per_second = settings.number(lower, word, range(), "number of flows a second")? as u32;
    let mut burst = per_second;
    if let Some(keyword) = settings.optional("burst") {
        burst = settings.number(lower, keyword, range(), "number of flows")? as u32;
    }
    Rate::new(per_second, burst)
}

fn unknown(lower: &mut Lower<'_>, word: &Word, block: &str) {
    let message = format!("`{}` is not expected here", shown(&word.text));
    lower.error(word.span, message, format!("expected a keyword of {block}, or the end of the line"));
}

fn connections(lower: &mut Lower<'_>, word: &Word, settings: &mut Settings<'_>) -> Option<u32> {
    settings
        .number(lower, word, 1..=MOST_CONNECTIONS, "number of connections")
        .and_then(|number| u32::try_from(number).ok())
}

fn workers(lower: &mut Lower<'_>, word: &Word, settings: &mut Settings<'_>) -> Option<Workers> {
    let count = settings.number(lower, word, 1..=MAX_WORKERS as u64, "number of workers")?;
    let count = usize::try_from(count).ok()?;
    let mut cores = Vec::new();
    if let Some(keyword) = settings.optional("cores") {
        while let Some(number) = settings.words.next_if(|next| next.text.starts_with(|c: char| c.is_ascii_digit())) {
            let core = lower.number(number, 0..=MOST_CORES - 1, "core")?;
            let core = CoreIndex(usize::try_from(core).ok()?);
            if cores.contains(&core) {
                lower.error(number.span, format!("core {} stands twice", core.0), "each worker has a core of its own");
            }
            cores.push(core);
        }
        if cores.len() != count {
            lower.error(
                keyword.span,
                format!("{count} workers, and {} named to run on", cores.len()),
                "expected as many cores as workers",
            );
        }
    }
    Some(Workers { count, cores })
}

/// `LOWEST-HIGHEST`.
fn local_ports(lower: &mut Lower<'_>, word: &Word, settings: &mut Settings<'_>) -> Option<LocalPorts> {
    let value = settings.value(lower, word, "a range of ports such as 5000-65535")?;
    let ends = value.text.split_once('-').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    let ports = ends.and_then(|(low, high)| LocalPorts::new(low, high));
    if ports.is_none() {
        let message = format!("`{}` is no range of ports", shown(&value.text));
        lower.error(value.span, message, "expected the lowest and the highest, 1 to 65535: 5000-65535");
    }
    ports
}

fn kernel_port(lower: &mut Lower<'_>, word: &Word, settings: &mut Settings<'_>) -> Option<KernelPort> {
    let on = settings.value(lower, word, ON_OFF).is_none_or(|value| lower.boolean(value));
    let mut port = KernelPort::default();
    if let Some(keyword) = settings.optional("rate") {
        let rate = settings.number(lower, keyword, 1..=u64::from(u32::MAX), "number of packets a second");
        port.rate = rate.and_then(|rate| u32::try_from(rate).ok()).unwrap_or(port.rate);
    }
    on.then_some(port)
}

fn interface(lower: &mut Lower<'_>, block: &Statement, interfaces: &mut Vec<InterfaceConfig>) {
    lower.extra(block, 1);
    let Some(word) = block.arguments().first() else { return lower.lacking(block, "the name of an interface") };
    let Some(name) = interface_name(lower, word) else { return };
    let mut config = InterfaceConfig {
        name,
        queues: Queues::default(),
        mode: XdpMode::default(),
        copy: CopyMode::default(),
        checksum: ChecksumPolicy::default(),
        busy_poll: None,
        place: lower.place(block.head()),
    };
    for statement in block.inner().iter().filter(|inner| inner.keyword.is_some()) {
        interface_settings(lower, statement, &mut config);
    }
    if let Some(first) = interfaces.iter().find(|known| known.name == config.name) {
        lower.report.push(
            Diagnostic::error(word.span, format!("the interface {} stands twice", config.name))
                .label(format!("first at {}", first.place)),
        );
    } else {
        interfaces.push(config);
    }
}

fn interface_settings(lower: &mut Lower<'_>, statement: &Statement, config: &mut InterfaceConfig) {
    let mut settings = Settings::new(&statement.words);
    while let Some(word) = settings.words.next() {
        match word.text.as_str() {
            "queues" => config.queues = queues(lower, word, &mut settings),
            "mode" => {
                let choices = [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];
                config.mode = settings.choice(lower, word, "mode", &choices).unwrap_or_default();
            }
            "copy" => {
                let choices = [("auto", CopyMode::Auto), ("copy", CopyMode::Copy), ("zerocopy", CopyMode::ZeroCopy)];
                config.copy = settings.choice(lower, word, "way to copy", &choices).unwrap_or_default();
            }
            "checksum" => {
                let choices = [
                    ("auto", ChecksumPolicy::Auto),
                    ("offload", ChecksumPolicy::Offload),
                    ("full", ChecksumPolicy::Full),
                ];
                config.checksum = settings.choice(lower, word, "way of checksums", &choices).unwrap_or_default();
            }
            "busy_poll" => config.busy_poll = busy_poll(lower, word, &mut settings),
            _ => return unknown(lower, word, "`interface`"),
        }
    }
}

fn queues(lower: &mut Lower<'_>, word: &Word, settings: &mut Settings<'_>) -> Queues {
    if settings.optional("all").is_some() {
        return Queues::All;
    }
    settings.number(lower, word, 1..=1024, "number of queues").map_or(Queues::All, |count| Queues::Count(count as u32))
}

fn busy_poll(lower: &mut Lower<'_>, word: &Word, settings: &mut Settings<'_>) -> Option<BusyPoll> {
    let on = settings.value(lower, word, ON_OFF).is_some_and(|value| lower.boolean(value));
    let mut poll = BusyPoll::default();
    if let Some(keyword) = settings.optional("budget") {
        let budget = settings.number(lower, keyword, 1..=65_535, "number of packets");
        poll.budget = budget.and_then(|budget| u16::try_from(budget).ok()).unwrap_or(poll.budget);
    }
    on.then_some(poll)
}
