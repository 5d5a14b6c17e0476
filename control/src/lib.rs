//! The control side of Sluice: configuration, the kernel's addresses and routes, the director and its commands.
