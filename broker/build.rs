//! Generates the gRPC services that the broker serves, whose messages are `floodmark_proto::pb::v1`, and the table of the lists that their
//! requests have. Needs no protoc.

#[path = "build/lists.rs"]
mod lists;

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

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
    println!("cargo::rerun-if-changed=build");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    for folder in ["server", "client"] {
        std::fs::create_dir_all(out.join(folder))?;
    }
    let descriptors = protox::compile(FILES, [FOLDER])?;
    let pool = protox::prost_reflect::DescriptorPool::from_file_descriptor_set(descriptors.clone())?;
    write(&out.join("server/lists.rs"), &lists::table(&pool))?;
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::grpc::codec::Messages")
        // Read and written without a message for each record.
        .extern_path(".floodmark.v1.AppendIfRequest", "crate::grpc::events::AppendIfRequest")
        .extern_path(".floodmark.v1.ProduceRequest", "crate::grpc::data::ProduceRequest")
        .extern_path(".floodmark.v1.SubscribeReply", "crate::grpc::data::Reply")
        .extern_path(".floodmark.v1", "::floodmark_proto::pb::v1")
        .out_dir(out.join("server"))
        .compile_fds(descriptors.clone())?;
    // What the tests call it with.
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".floodmark.v1", "::floodmark_proto::pb::v1")
        .out_dir(out.join("client"))
        .compile_fds(descriptors)?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a build writes what it made of its sources")]
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text)
}
