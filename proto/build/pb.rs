//! Generates `src/pb.rs`'s modules from the messages in `proto/proto`. Needs no protoc.

use std::error::Error;
use std::path::Path;

const FILES: [&str; 1] = ["proto/metadata.proto"];

/// One file in `out` for each package.
pub(crate) fn generate(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).out_dir(out);
    config.compile_fds(descriptors)?;
    Ok(())
}
