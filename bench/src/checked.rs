//! Ports that look at every frame before it leaves: for `--verify`, never for measuring.

use std::time::Duration;

use dataplane::ident::PortIndex;
use dataplane::port::{Burst, Frame, Ports};

use crate::loop_ports::LoopPorts;
use crate::scene::Scene;
use crate::verify::{self, BadFrame};

/// [`LoopPorts`] whose frames are parsed and compared with what the scene's method does.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) ports: LoopPorts,
    scene: Scene,
    /// The first frame that was wrong.
    pub(crate) wrong: Option<BadFrame>,
}

impl Checked {
    pub(crate) const fn new(ports: LoopPorts, scene: Scene) -> Self {
        Self { ports, scene, wrong: None }
    }

    fn check(&self, port: PortIndex, frame: &Frame) -> Result<(), BadFrame> {
        let bytes = self.ports.bytes(frame);
        self.scene.judge(port, bytes, &verify::parse(bytes)?)
    }
}

impl Ports for Checked {
    fn count(&self) -> usize {
        self.ports.count()
    }

    fn receive(&mut self, port: PortIndex, burst: &mut Burst) {
        self.ports.receive(port, burst);
    }

    fn bytes(&self, frame: &Frame) -> &[u8] {
        self.ports.bytes(frame)
    }

    fn bytes_mut(&mut self, frame: &mut Frame) -> &mut [u8] {
        self.ports.bytes_mut(frame)
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.ports.allocate()
    }

    fn transmit(&mut self, port: PortIndex, frame: Frame) -> Result<(), Frame> {
        if let Err(wrong) = self.check(port, &frame) {
            self.wrong.get_or_insert(wrong);
        }
        self.ports.transmit(port, frame)
    }

    fn free(&mut self, frame: Frame) {
        self.ports.free(frame);
    }

    fn flush(&mut self) {
        self.ports.flush();
    }

    fn wait(&mut self, timeout: Duration) {
        self.ports.wait(timeout);
    }
}
