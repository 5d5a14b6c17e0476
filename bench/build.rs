//! Compiles the XDP programs of `sluice-pktgen` with clang, where feature `afxdp` is on.

#[path = "../dataplane/bpf/compile.rs"]
mod bpf;

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-changed=../dataplane/bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    if std::env::var_os("CARGO_FEATURE_AFXDP").is_some()
        && let Err(problem) = bpf::compile("bpf/take.bpf.c", "../dataplane/bpf", "take.bpf.o")
    {
        println!("cargo:warning={problem}");
        std::process::exit(1);
    }
}
