//! Generates `src/pb.rs`'s modules from the messages in `proto/proto`. Needs no protoc. Services are generated where they are served and
//! called, because what drives them knows sockets.

use std::error::Error;
use std::path::Path;

use protox::prost::Message as _;

const FILES: &[&str] = &[
    "proto/controller.proto",
    "proto/metadata.proto",
    "proto/quorum.proto",
    "proto/replica.proto",
    "proto/floodmark/v1/types.proto",
    "proto/floodmark/v1/data.proto",
    "proto/floodmark/v1/group.proto",
    "proto/floodmark/v1/admin.proto",
    "proto/floodmark/v1/events.proto",
];
const PUBLIC: &str = "floodmark.v1";

/// One file in `out` for each package, and the public ones' descriptors.
#[expect(clippy::disallowed_methods, reason = "a build reads its sources and writes what it made of them")]
pub(crate) fn generate(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build");
    let mut descriptors = protox::compile(FILES, ["proto"])?;
    let mut public = descriptors.clone();
    // Comments are for readers of the files.
    public.file.iter_mut().for_each(|file| file.source_code_info = None);
    public.file.retain(|file| file.package() == PUBLIC);
    std::fs::write(out.join("floodmark.v1.descriptors"), public.encode_to_vec())?;
    descriptors.file.iter_mut().for_each(|file| file.service.clear());
    let mut config = prost_build::Config::new();
    config.bytes(["."]).out_dir(out);
    config.compile_fds(descriptors)?;
    Ok(())
}
