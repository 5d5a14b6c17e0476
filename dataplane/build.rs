//! Compiles the XDP program with clang, where feature `afxdp` is on.

#[path = "bpf/compile.rs"]
mod bpf;

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    if std::env::var_os("CARGO_FEATURE_AFXDP").is_some()
        && let Err(problem) = bpf::compile("bpf/steer.bpf.c", "bpf", "steer.bpf.o")
    {
        println!("cargo:warning={problem}");
        std::process::exit(1);
    }
}
