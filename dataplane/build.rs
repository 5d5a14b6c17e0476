//! Compiles the XDP program with clang, where feature `afxdp` is on. Needs clang and the kernel's user headers only.

use std::path::Path;
use std::process::{Command, exit};

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    if std::env::var_os("CARGO_FEATURE_AFXDP").is_some()
        && let Err(problem) = compile()
    {
        println!("cargo:warning={problem}");
        exit(1);
    }
}

fn compile() -> Result<(), String> {
    let out = std::env::var("OUT_DIR").map_err(|e| format!("OUT_DIR: {e}"))?;
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]);
    // Debian keeps asm/ in a folder of the machine's, where a compiler for BPF does not look.
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let headers = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&headers).is_dir() {
        command.args(["-idirafter", &headers]);
    }
    command.args(["-c", "bpf/steer.bpf.c", "-o"]).arg(Path::new(&out).join("steer.bpf.o"));
    let done = command.output().map_err(|e| {
        format!("cannot run {clang}: {e}. Install clang, set CLANG, or build without the feature `afxdp`.")
    })?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{clang} failed on bpf/steer.bpf.c: {}", String::from_utf8_lossy(&done.stderr).replace('\n', " | ")))
}
