//! Captured frames as pcapng: an interface block for each port, and with each frame a comment that says where it was.

use std::borrow::Cow;
use std::time::Duration;

use dataplane::watch::{Record, SNAP, Step};
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::{Block, PcapNgWriter};

/// Times are in nanoseconds: ten to the minus ninth.
const NANOSECONDS: u8 = 9;
/// Directions in the flags of a frame.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// The blocks of one capture.
pub(super) struct Blocks {
    /// When the machine was booted, since the epoch.
    boot: Duration,
    /// Into memory; emptied piece by piece.
    writer: Option<PcapNgWriter<Shelf>>,
    shelf: Shelf,
    interfaces: u32,
    /// Lost since the last frame.
    lost: u64,
}

/// Bytes written and not taken yet, of which the library's writer has a share.
#[derive(Clone, Debug, Default)]
struct Shelf(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Shelf {
    fn take(&self) -> Vec<u8> {
        self.0.lock().map(|mut bytes| std::mem::take(&mut *bytes)).unwrap_or_default()
    }
}

impl std::io::Write for Shelf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Ok(mut all) = self.0.lock() {
            all.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Blocks {
    /// Begins with the section and the interfaces: the ports by index, and one for frames that were dropped.
    pub(super) fn new(boot: Duration, ports: &[String]) -> Self {
        let shelf = Shelf::default();
        let mut blocks = Self { boot, writer: PcapNgWriter::new(shelf.clone()).ok(), shelf, interfaces: 0, lost: 0 };
        for name in ports.iter().map(String::as_str).chain(["dropped"]) {
            let options = vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ];
            blocks.write(&Block::InterfaceDescription(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: SNAP as u32,
                options,
            }));
            blocks.interfaces += 1;
        }
        blocks
    }

    /// What was written before the first frame, once.
    pub(super) fn begin(&mut self) -> Vec<u8> {
        self.shelf.take()
    }

    /// Adds a frame to `out`.
    pub(super) fn add(&mut self, out: &mut Vec<u8>, record: &Record) {
        let dropped = self.interfaces.saturating_sub(1);
        let (interface, comment, flags) = match record.step {
            Step::Dropped(reason) => (dropped, format!("drop {}: {}", reason.name(), reason.describe()), None),
            Step::Left => (u32::from(record.port.0), "egress".to_owned(), Some(OUTBOUND)),
            _ => (u32::from(record.port.0), "ingress".to_owned(), Some(INBOUND)),
        };
        let comment = format!("{comment}; worker {} packet {}", record.worker.0, record.packet);
        let mut options = vec![EnhancedPacketOption::Comment(Cow::Owned(comment))];
        options.extend(flags.map(EnhancedPacketOption::Flags));
        if self.lost > 0 {
            options.push(EnhancedPacketOption::DropCount(std::mem::take(&mut self.lost)));
        }
        self.write(&Block::EnhancedPacket(EnhancedPacketBlock {
            interface_id: interface.min(dropped),
            timestamp: self.boot + record.time,
            original_len: u32::from(record.length),
            data: Cow::Borrowed(record.bytes()),
            options,
        }));
        out.append(&mut self.shelf.take());
    }

    /// Notes with the next frame that so many before it are missing.
    pub(super) const fn lost(&mut self, more: u64) {
        self.lost += more;
    }

    fn write(&mut self, block: &Block<'_>) {
        if let Some(writer) = &mut self.writer {
            // Memory takes everything, and interfaces are those that were written.
            let _ = writer.write_block(block);
        }
    }
}
