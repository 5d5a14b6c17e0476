//! Loads the steering program and keeps its maps equal to a plan.
//!
//! The program's maps belong to the program: they live as long as it is attached, also after this process is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, PrintLevel};

use super::attach::{self, AttachMode, Interface};
use super::hints::Hints;
use super::plan::{Contents, Key, SteerPlan, Table};
use super::{SteerError, Verdict};

/// The program's name in the kernel, by which a later process knows it.
pub(super) const PROGRAM: &str = "sluice_steer";

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

/// How much the maps hold. Memory is used by entries, not by limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteerLimits {
    /// Virtual services, and whole addresses.
    pub services: u32,
    /// NAT real servers.
    pub replies: u32,
    /// The director's own addresses, those of FULLNAT, and MACs.
    pub own: u32,
    /// Sockets: one more than the largest XSKMAP index.
    pub sockets: u32,
}

impl Default for SteerLimits {
    fn default() -> Self {
        Self { services: 65_536, replies: 1_048_576, own: 4096, sockets: 4096 }
    }
}

impl SteerLimits {
    const fn of(&self, table: Table) -> u32 {
        match table {
            Table::Own | Table::Macs | Table::Locals => self.own,
            Table::Services | Table::Addresses | Table::FragmentDestinations | Table::Prefixes => self.services,
            Table::Replies | Table::ReplySources | Table::FragmentSources | Table::Tunnels => self.replies,
        }
    }
}

/// What the program would do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave it to the kernel.
    Pass,
    /// Drop it: caught, with no socket behind.
    Drop,
    /// Give it to a socket.
    Redirect,
}

/// The loaded steering program with its maps.
#[derive(Debug)]
pub struct Steer {
    object: Object,
    limits: SteerLimits,
    // By the discriminant of [`Table`].
    tables: Vec<MapHandle>,
    ports: MapHandle,
    sockets: MapHandle,
    counted: MapHandle,
    hints: Hints,
    /// Where the program finds them.
    known: MapHandle,
    applied: Contents,
    /// What each attached interface has in the map `ports` without [`STANDBY`].
    bases: BTreeMap<u32, u32>,
    standby: BTreeSet<u32>,
}

const HINTS: &str = "hints";

/// Set in the map `ports` for an interface whose frames of services are dropped.
const STANDBY: u32 = 1 << 31;

impl Steer {
    /// Loads the program with empty maps. It is attached nowhere yet.
    ///
    /// # Errors
    /// When the kernel refuses it, most often for want of privilege.
    pub fn load(limits: &SteerLimits) -> Result<Self, SteerError> {
        libbpf_rs::set_print(Some((PrintLevel::Info, log)));
        let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(SteerError::Load)?;
        for mut map in open.maps_mut() {
            let entries = match Table::ALL.iter().find(|t| map.name() == t.name()) {
                // Changes add before they remove, so both generations must fit.
                Some(table) => limits.of(*table).saturating_mul(2),
                None if map.name() == "xsks" => limits.sockets,
                None => continue,
            };
            map.set_max_entries(entries.max(1)).map_err(SteerError::Load)?;
        }
        let object = open.load().map_err(SteerError::Load)?;
        let mut tables = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            tables.push(handle(&object, table.name())?);
        }
        let steer = Self {
            tables,
            ports: handle(&object, "ports")?,
            sockets: handle(&object, "xsks")?,
            counted: handle(&object, "counted")?,
            hints: Hints::empty(),
            known: hints(&object)?,
            applied: Contents::new(),
            bases: BTreeMap::new(),
            standby: BTreeSet::new(),
            limits: *limits,
            object,
        };
        steer.write_hints()?;
        Ok(steer)
    }

    /// Attaches the program to an interface, whose queue `n` is then served by socket index `base + n`. Replaces a
    /// program of ours that a dead process left, atomically. Do this after [`Steer::apply`], or the frames of services
    /// pass to the kernel in between, and before sockets are bound. Returns the mode that it runs in.
    ///
    /// # Errors
    /// A foreign program is left alone; an MTU too large for one XDP buffer; whatever else the kernel says.
    pub fn attach(
        &mut self,
        interface: &Interface,
        base: u32,
        preferred: AttachMode,
    ) -> Result<AttachMode, SteerError> {
        self.bases.insert(interface.index, base);
        self.write_port(interface.index, base)?;
        let attached = attach::attach(self.program()?.as_fd(), interface, preferred);
        if attached.is_err() {
            self.forget_port(interface.index)?;
        }
        attached
    }

    /// Takes the program off an interface, if it is this one that is there.
    pub fn detach(&mut self, interface: &Interface) -> Result<(), SteerError> {
        attach::detach(self.program()?.as_fd(), interface)?;
        self.forget_port(interface.index)
    }

    /// Puts an AF_XDP socket behind an index. The kernel takes it out by itself when the socket closes.
    pub fn set_socket(&mut self, index: u32, socket: RawFd) -> Result<(), SteerError> {
        write(&self.sockets, "xsks", &index.to_ne_bytes(), socket.cast_unsigned())
    }

    /// Takes the socket from an index; none there is no error.
    pub fn clear_socket(&mut self, index: u32) -> Result<(), SteerError> {
        remove(&self.sockets, "xsks", &index.to_ne_bytes())
    }

    /// Makes the maps carry out `plan`: new entries first, then the removal of what is no longer wanted, so that what
    /// stays is caught at every moment.
    ///
    /// # Errors
    /// [`SteerError::Full`] before any change; after another error a repetition goes on where it stopped.
    pub fn apply(&mut self, plan: &SteerPlan) -> Result<(), SteerError> {
        let wanted = plan.contents();
        self.check_limits(&wanted)?;
        for (at, value) in &wanted {
            if self.applied.get(at) != Some(value) {
                self.write_entry(at, *value)?;
                self.applied.insert(*at, *value);
            }
        }
        // Hints know what was added before they are relied on for it, and nothing any more that is about to go.
        self.update_hints(&wanted)?;
        let stale: Vec<(Table, Key)> =
            self.applied.keys().rev().filter(|at| !wanted.contains_key(at)).copied().collect();
        for at in stale {
            let (table, key) = at;
            remove(self.table(table), table.name(), &key[..table.key_size()])?;
            self.applied.remove(&at);
        }
        self.update_hints(&wanted)?;
        self.set_standby(&plan.standby)
    }

    fn update_hints(&mut self, wanted: &Contents) -> Result<(), SteerError> {
        let before = self.hints.clone();
        self.hints.describe(&self.applied, wanted);
        if self.hints == before { Ok(()) } else { self.write_hints() }
    }

    fn write_hints(&self) -> Result<(), SteerError> {
        let only = 0u32.to_ne_bytes();
        self.known.update(&only, &self.hints.bytes(), MapFlags::ANY).map_err(map_error(HINTS))
    }

    fn set_standby(&mut self, standby: &BTreeSet<u32>) -> Result<(), SteerError> {
        let changed: Vec<u32> = self.standby.symmetric_difference(standby).copied().collect();
        self.standby.clone_from(standby);
        for index in changed {
            if let Some(base) = self.bases.get(&index).copied() {
                self.write_port(index, base)?;
            }
        }
        Ok(())
    }

    fn write_port(&mut self, index: u32, base: u32) -> Result<(), SteerError> {
        let standby = if self.standby.contains(&index) { STANDBY } else { 0 };
        write(&self.ports, "ports", &index.to_ne_bytes(), base | standby)?;
        self.hints.enter(index, base | standby);
        self.write_hints()
    }

    fn forget_port(&mut self, index: u32) -> Result<(), SteerError> {
        self.bases.remove(&index);
        self.hints.leave(index);
        self.write_hints()?;
        remove(&self.ports, "ports", &index.to_ne_bytes())
    }

    /// The counters of all CPUs together, by name, in the order of [`Verdict::ALL`].
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, SteerError> {
        let all = self.all_counters()?;
        Ok(Verdict::ALL.iter().zip(all).map(|(verdict, count)| (verdict.name(), count)).collect())
    }

    /// One counter, of all CPUs together.
    pub fn counter(&self, verdict: Verdict) -> Result<u64, SteerError> {
        Ok(self.all_counters()?[verdict as usize])
    }

    fn all_counters(&self) -> Result<[u64; Verdict::ALL.len()], SteerError> {
        let only = 0u32.to_ne_bytes();
        let cpus = self.counted.lookup_percpu(&only, MapFlags::ANY).map_err(map_error("counted"))?;
        let mut all = [0; Verdict::ALL.len()];
        for cpu in cpus.unwrap_or_default() {
            for (sum, count) in all.iter_mut().zip(cpu.as_chunks().0) {
                *sum += u64::from_ne_bytes(*count);
            }
        }
        Ok(all)
    }

    /// Runs the program on a frame as if it had come in on queue 0 of the loopback interface, and counts it so.
    ///
    /// # Errors
    /// The kernel takes no frame shorter than an Ethernet header.
    pub fn decide(&self, frame: &[u8]) -> Result<Decision, SteerError> {
        self.time(frame, 1).map(|(decision, _)| decision)
    }

    /// As [`Steer::decide`], `runs` times: also how long one run takes, to the nanosecond.
    ///
    /// # Errors
    /// As [`Steer::decide`].
    pub fn time(&self, frame: &[u8], runs: u32) -> Result<(Decision, Duration), SteerError> {
        let input = libbpf_rs::ProgramInput { data_in: Some(frame), repeat: runs, ..Default::default() };
        let failed = |source| SteerError::Trial { bytes: frame.len(), source };
        let program = self.object.progs_mut().find(|p| p.name() == PROGRAM).ok_or(SteerError::Missing(PROGRAM))?;
        let output = program.test_run(input).map_err(failed)?;
        let decision = match output.return_value {
            libbpf_rs::libbpf_sys::XDP_PASS => Decision::Pass,
            libbpf_rs::libbpf_sys::XDP_REDIRECT => Decision::Redirect,
            _ => Decision::Drop,
        };
        Ok((decision, output.duration))
    }

    fn check_limits(&self, wanted: &Contents) -> Result<(), SteerError> {
        for table in Table::ALL {
            let entries = wanted.keys().filter(|(t, _)| *t == table).count();
            let limit = self.limits.of(table) as usize;
            if entries > limit {
                return Err(SteerError::Full { map: table.name(), wanted: entries, limit });
            }
        }
        Ok(())
    }

    fn write_entry(&self, (table, key): &(Table, Key), value: u32) -> Result<(), SteerError> {
        write(self.table(*table), table.name(), &key[..table.key_size()], value)
    }

    fn table(&self, table: Table) -> &MapHandle {
        &self.tables[table as usize]
    }

    fn program(&self) -> Result<libbpf_rs::Program<'_>, SteerError> {
        self.object.progs().find(|p| p.name() == PROGRAM).ok_or(SteerError::Missing(PROGRAM))
    }
}

fn handle(object: &Object, name: &'static str) -> Result<MapHandle, SteerError> {
    let map = object.maps().find(|m| m.name() == name).ok_or(SteerError::Missing(name))?;
    MapHandle::try_from(&map).map_err(map_error(name))
}

/// The map that libbpf makes of the program's global variable.
fn hints(object: &Object) -> Result<MapHandle, SteerError> {
    let is_it = |map: &libbpf_rs::Map<'_>| map.name().to_string_lossy().ends_with(".bss");
    let map = object.maps().find(is_it).filter(|map| map.value_size() as usize == Hints::BYTES);
    MapHandle::try_from(&map.ok_or(SteerError::Missing(HINTS))?).map_err(map_error(HINTS))
}

fn write(map: &MapHandle, name: &'static str, key: &[u8], value: u32) -> Result<(), SteerError> {
    map.update(key, &value.to_ne_bytes(), MapFlags::ANY).map_err(map_error(name))
}

/// Removes an entry; none there is no error.
fn remove(map: &MapHandle, name: &'static str, key: &[u8]) -> Result<(), SteerError> {
    match map.delete(key) {
        Err(e) if e.kind() != libbpf_rs::ErrorKind::NotFound => Err(map_error(name)(e)),
        _ => Ok(()),
    }
}

fn map_error(map: &'static str) -> impl Fn(libbpf_rs::Error) -> SteerError {
    move |source| SteerError::Map { map, source }
}

/// libbpf's own messages, which would else go to standard error.
#[allow(clippy::needless_pass_by_value)] // the signature that libbpf-rs wants
fn log(level: PrintLevel, message: String) {
    let message = message.trim_end();
    if level == PrintLevel::Warn {
        tracing::warn!(target: "libbpf", "{message}");
    } else {
        tracing::debug!(target: "libbpf", "{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_indexed_by_their_discriminants() {
        assert!(Table::ALL.iter().enumerate().all(|(n, table)| *table as usize == n));
    }
}
