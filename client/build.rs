//! Generates the gRPC services that the client calls; their messages are `floodmark_proto::pb::v1`. Needs no protoc.

use std::error::Error;

const FILES: [&str; 4] = [
    "floodmark/v1/data.proto",
    "floodmark/v1/group.proto",
    "floodmark/v1/admin.proto",
    "floodmark/v1/events.proto",
];
const FOLDER: &str = "../proto/proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FOLDER}");
    println!("cargo::rerun-if-changed=build.rs");
    let descriptors = protox::compile(FILES, [FOLDER])?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".floodmark.v1", "::floodmark_proto::pb::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
