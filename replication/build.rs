//! Generates both ends of the services between brokers; their messages are `floodmark_proto::pb`. Needs no protoc.

use std::error::Error;

const FILES: &[&str] = &[
    // One line each.
    "controller.proto",
    "quorum.proto",
    "replica.proto",
];
const FOLDER: &str = "../proto/proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FOLDER}");
    println!("cargo::rerun-if-changed=build.rs");
    let descriptors = protox::compile(FILES, [FOLDER])?;
    tonic_prost_build::configure()
        .extern_path(".floodmark.controller", "::floodmark_proto::pb::controller")
        .extern_path(".floodmark.metadata", "::floodmark_proto::pb::metadata")
        .extern_path(".floodmark.quorum", "::floodmark_proto::pb::quorum")
        .extern_path(".floodmark.replica", "::floodmark_proto::pb::replica")
        .compile_fds(descriptors)?;
    Ok(())
}
