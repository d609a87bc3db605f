//! A Python program that has the .proto files and nothing else. Needs Python and, the first time, PyPI; without Python it says so and
//! passes, unless `FLOODMARK_REQUIRE_CLIENTS=1`.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]
#![allow(clippy::disallowed_methods, reason = "files of the test itself")]

use std::path::{Path, PathBuf};
use std::process::Command;

use floodmark_broker::{Broker, BrokerConfig};

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(format!("{command:?}: {said}")) }
}

/// Python with what it takes, kept under `target/` for the next time; and the folder of the generated modules.
fn installed(here: &Path) -> Result<(PathBuf, PathBuf), String> {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("python-client");
    let (python, wanted) = (place.join("venv/bin/python"), here.join("requirements.txt"));
    let stamp = place.join("installed.txt");
    let requirements = std::fs::read_to_string(&wanted).unwrap();
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == requirements) {
        return Ok((python, place));
    }
    std::fs::create_dir_all(&place).unwrap();
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(place.join("venv")))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&wanted))?;
    std::fs::write(&stamp, requirements).unwrap();
    Ok((python, place))
}

#[test]
fn a_program_made_from_the_proto_files_alone_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (here, protos) = (root.join("tests/python"), root.join("../proto/proto"));
    let (python, place) = match installed(&here) {
        Ok(installed) => installed,
        Err(e) => {
            assert_ne!(std::env::var("FLOODMARK_REQUIRE_CLIENTS").as_deref(), Ok("1"), "{e}");
            eprintln!("skipped, because Python or its packages are not to be had: {e}");
            return;
        }
    };
    let generated = place.join("generated");
    std::fs::create_dir_all(&generated).unwrap();
    let mut protoc = Command::new(&python);
    protoc.args(["-m", "grpc_tools.protoc"]).arg(format!("-I{}", protos.display()));
    for out in ["--python_out", "--grpc_python_out"] {
        protoc.arg(format!("{out}={}", generated.display()));
    }
    let files = ["types", "data", "group", "admin", "events"];
    protoc.args(files.map(|file| protos.join(format!("floodmark/v1/{file}.proto"))));
    run(&mut protoc).unwrap();

    let broker = Broker::start(BrokerConfig::temporary().unwrap()).unwrap();
    let mut program = Command::new(&python);
    program.arg(here.join("program.py")).arg(broker.grpc_address().unwrap().to_string());
    // A proxy of the environment is not for what is here.
    program.env("PYTHONPATH", &generated).env("no_grpc_proxy", "127.0.0.1");
    let said = run(&mut program).unwrap();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["make_topic", "produce", "subscribe", "read_stream", "be_refused"]
    );
    broker.stop();
}
