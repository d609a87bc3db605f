//! Generates code from what is written down once: the Kafka messages of `src/kafka` from the tables in `schema/kafka`, and the messages
//! in `proto/`. Needs nothing but this folder.

#[path = "build/codegen.rs"]
mod codegen;
#[path = "build/pb.rs"]
mod pb;
#[path = "build/schema.rs"]
#[allow(dead_code, reason = "tests read the tables through the same file")]
mod schema;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use schema::Table;

fn main() -> ExitCode {
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    kafka_messages(Path::new("schema/kafka"), &out.join("kafka"))?;
    pb::generate(&out)
}

/// One file for each table, one with all of them as modules, one with the list of APIs.
#[expect(clippy::disallowed_methods, reason = "a build reads its sources and writes what it made of them")]
fn kafka_messages(schema: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", schema.display());
    println!("cargo::rerun-if-changed=build");
    let mut paths = fs::read_dir(schema)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<PathBuf>, _>>()?;
    paths.sort();
    let mut tables = Vec::new();
    for path in &paths {
        let table = Table::parse(&format!("proto/{}", path.display()), &fs::read_to_string(path)?)?;
        let module = codegen::snake_case(&table.name);
        if path.file_name().is_none_or(|name| *name != *format!("{module}.txt")) {
            return Err(
                format!("{}: the table of {} belongs in {module}.txt", path.display(), table.name).into()
            );
        }
        tables.push(table);
    }
    fs::create_dir_all(out)?;
    for table in &tables {
        fs::write(out.join(codegen::snake_case(&table.name)).with_extension("rs"), codegen::messages(table))?;
    }
    fs::write(out.join("mod.rs"), codegen::modules(&tables))?;
    tables.sort_by_key(|table| table.api_key);
    fs::write(out.join("api_key.rs"), codegen::api_keys(&tables))?;
    Ok(())
}
