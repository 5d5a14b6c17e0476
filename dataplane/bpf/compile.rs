// Compiles a BPF program with clang. Included by the build scripts of this crate and of `bench`.
// Needs clang and the kernel's user headers only.

use std::path::Path;
use std::process::Command;

/// Compiles `source` to `object` in the build's output folder; `bpf.h` and its like are found in `headers`.
pub(crate) fn compile(source: &str, headers: &str, object: &str) -> Result<(), String> {
    let out = std::env::var("OUT_DIR").map_err(|e| format!("OUT_DIR: {e}"))?;
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-I", headers]);
    // Debian keeps asm/ in a folder of the machine's, where a compiler for BPF does not look.
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let machine = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&machine).is_dir() {
        command.args(["-idirafter", &machine]);
    }
    command.args(["-c", source, "-o"]).arg(Path::new(&out).join(object));
    let done = command.output().map_err(|e| {
        format!("cannot run {clang}: {e}. Install clang, set CLANG, or build without the feature `afxdp`.")
    })?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{clang} failed on {source}: {}", String::from_utf8_lossy(&done.stderr).replace('\n', " | ")))
}
