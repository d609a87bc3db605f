//! Tells the linker what makes the program take less memory, which counts its pages: one copy of functions that are the same to the byte,
//! for generic code leaves many; and what a broker needs from its start until it is at rest in one place, not all over the program.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// Made by `layout/trace.py`, which says how and what a line is.
const STARTUP: &str = "layout/startup.txt";

#[expect(clippy::disallowed_methods, reason = "a build reads the list and writes what it made of it")]
fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={STARTUP}");
    if !links_with_the_toolchains_linker() {
        return Ok(());
    }
    println!("cargo::rustc-link-arg-bin=floodmark=-Wl,--icf=all");
    // What is built to be tried is linked often, and the list costs time.
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        let script = Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("startup.ld");
        fs::write(&script, linker_script(&fs::read_to_string(STARTUP)?))?;
        // As two: a comma in the path would end an argument that is handed on by `-Wl`.
        println!("cargo::rustc-link-arg-bin=floodmark=-T");
        println!("cargo::rustc-link-arg-bin=floodmark={}", script.display());
    }
    Ok(())
}

/// Whether the linker is the one that the toolchain brings along for this one target, where nobody asked for another. Others know no
/// folding, or understand scripts in another way, and would refuse to link.
fn links_with_the_toolchains_linker() -> bool {
    let is = |name, value| env::var(name).is_ok_and(|found| found == value);
    let for_the_target = is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let another_asked_for = env::var_os("RUSTC_LINKER").is_some()
        || ["linker", "fuse-ld", "link-self-contained"].iter().any(|word| flags.contains(word));
    for_the_target && !another_asked_for && toolchains_linker().is_some_and(|linker| linker.exists())
}

/// Where a toolchain that uses its own linker has it. Those that distributions build may use the system's.
fn toolchains_linker() -> Option<PathBuf> {
    let printed = Command::new(env::var_os("RUSTC")?).args(["--print", "target-libdir"]).output().ok()?;
    let libraries = PathBuf::from(String::from_utf8(printed.stdout).ok()?.trim_end());
    Some(libraries.parent()?.join("bin/gcc-ld/ld.lld"))
}

/// Puts those functions before all others, from a boundary on of the piece that the kernel maps around a touch: first what is called, then
/// what only shares its name, for builds in which hashes are others.
fn linker_script(list: &str) -> String {
    let lines = || list.lines().filter(|line| !line.starts_with('#'));
    let mut script = "SECTIONS { .text.startup_first : ALIGN(65536) {\n".to_owned();
    for line in lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default().trim_start_matches('!');
        let mut hashes = words.peekable();
        if hashes.peek().is_none() {
            add_pattern(&mut script, name);
            // What became visible to other modules when they were optimized together.
            add_pattern(&mut script, &format!("{name}.llvm.*"));
        }
        for hash in hashes {
            add_pattern(&mut script, &format!("{name}{hash}E*"));
        }
    }
    script.push_str("} .text.startup_kin : {\n");
    for line in lines().filter(|line| !line.starts_with('!')) {
        if let Some((name, _)) = line.split_once(' ') {
            add_pattern(&mut script, &format!("{name}*"));
        }
    }
    script.push_str("} } INSERT BEFORE .text;\n");
    script
}

fn add_pattern(script: &mut String, name: &str) {
    for prefix in ["", "unlikely."] {
        // Writing to a string does not fail.
        let _ = writeln!(script, "*(\".text.{prefix}{name}\")");
    }
}
