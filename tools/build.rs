//! Has the linker keep one copy of functions that are the same to the byte: generic code leaves many, and a program's pages count as its
//! memory.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name, value| env::var(name).is_ok_and(|found| found == value);
    // The one target for which the toolchain brings a linker that can.
    if is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
    {
        println!("cargo::rustc-link-arg-bin=floodmark=-Wl,--icf=all");
    }
}
