//! What leaves: one capture for each interface, with the time of the packet that caused the frame.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataplane::ident::PortIndex;
use dataplane::port::capture::{BadCapture, CaptureError, CaptureWriter};

use super::ReplayError;
use super::fate::Sent;
use crate::compile::PortPlan;
use crate::topology::{LinkKind, Topology};

/// A frame on its way out.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) port: PortIndex,
    pub(super) time: Duration,
    pub(super) bytes: Vec<u8>,
}

/// The output captures.
pub(super) struct Outputs {
    /// By the port's index, where the interface is a port.
    ports: Vec<String>,
    captures: BTreeMap<String, Output>,
}

struct Output {
    path: PathBuf,
    writer: CaptureWriter<BufWriter<File>>,
    frames: usize,
}

impl Outputs {
    /// Begins a capture for each interface that frames can leave by: all Ethernet ones that are no VLAN of another.
    pub(super) fn create(dir: &Path, topology: &Topology, ports: &[PortPlan]) -> Result<Self, ReplayError> {
        let ports: Vec<String> = ports.iter().map(|port| port.name.clone()).collect();
        let links = topology.links.values();
        let physical = links.filter(|state| !matches!(state.kind, LinkKind::Loopback | LinkKind::Vlan { .. }));
        let mut captures = BTreeMap::new();
        for name in physical.map(|state| &state.name).chain(&ports) {
            if is_kernel_end(name) {
                continue;
            }
            let path = dir.join(format!("{name}.pcap"));
            let file = File::create(&path).map_err(|e| super::file(&path, e))?;
            let writer = CaptureWriter::new(BufWriter::new(file)).map_err(|problem| failed(&path, problem))?;
            captures.insert(name.clone(), Output { path, writer, frames: 0 });
        }
        Ok(Self { ports, captures })
    }

    /// Writes a frame; where it went.
    pub(super) fn write(&mut self, departure: Departure) -> Result<Option<Sent>, ReplayError> {
        let Some(name) = self.ports.get(departure.port.0 as usize) else { return Ok(None) };
        let Some(output) = self.captures.get_mut(name) else { return Ok(None) };
        let written = output.writer.write(departure.time, &departure.bytes);
        written.map_err(|problem| failed(&output.path, problem))?;
        output.frames += 1;
        Ok(Some(Sent { to: name.clone(), output_index: output.frames - 1 }))
    }

    /// Completes all captures.
    pub(super) fn finish(self) -> Result<(), ReplayError> {
        for Output { path, writer, .. } in self.captures.into_values() {
            writer.finish().map_err(|problem| failed(&path, problem))?;
        }
        Ok(())
    }
}

/// The kernel's end of the kernel port: what goes there is in the capture of the other end.
fn is_kernel_end(name: &str) -> bool {
    name == crate::compile::kernel_port::KERNEL_END
}

fn failed(path: &Path, problem: BadCapture) -> ReplayError {
    CaptureError { path: path.to_owned(), problem }.into()
}
