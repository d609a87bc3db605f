//! Fetches what others publish into `target/`, once, and unpacks it there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::process;

const DEADLINE: Duration = Duration::from_secs(300);
const POM: &str = include_str!("pom.xml");
const KAFKA_JARS: [&str; 2] = ["kafka-clients-4.3.1.jar", "kafka-group-coordinator-4.3.1.jar"];
const KAFKA_PYTHON: &str = "kafka-python==3.0.12";

/// Somebody's definitions, in a folder of `target/`.
pub(crate) struct Fetched {
    home: PathBuf,
    /// Where in it the definitions lie.
    definitions: PathBuf,
}

impl Fetched {
    /// Those in Kafka's jars; none, said on standard error, where there is no Maven or JDK, unless `FLOODMARK_REQUIRE_JAVA=1`.
    pub(crate) fn kafka() -> Option<Fetched> {
        let required = std::env::var("FLOODMARK_REQUIRE_JAVA").is_ok_and(|value| value == "1");
        obtain("kafka-definitions", POM, &["mvn", "javac"], required, |home| {
            fs::write(home.join("wanted.xml"), POM).unwrap();
            let mut mvn = Command::new("mvn");
            mvn.args([
                "-B",
                "-q",
                "-f",
                "wanted.xml",
                "dependency:copy-dependencies",
                "-DexcludeTransitive=true",
            ]);
            run(mvn.args(["-DoutputDirectory=lib", "-Dmdep.useBaseVersion=true"]), home, "mvn")?;
            for jar in KAFKA_JARS {
                run(Command::new("jar").args(["xf", &format!("lib/{jar}"), "common/message"]), home, "jar")?;
            }
            Ok(home.join("common/message"))
        })
    }

    /// Those in a Python client, which are those of requests and responses alone.
    pub(crate) fn kafka_python() -> Option<Fetched> {
        obtain("kafka-python-definitions", KAFKA_PYTHON, &["python3"], false, |home| {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", "."]);
            run(pip.arg(KAFKA_PYTHON), home, "pip")?;
            let mut wheels = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path());
            let wheel = wheels.find(|path| path.extension().is_some_and(|e| e == "whl"));
            let wheel = wheel.ok_or("pip left no wheel")?;
            run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg("."), home, "zipfile")?;
            Ok(home.join("kafka/protocol/schemas/resources"))
        })
    }

    /// All of them, by the name of the message.
    pub(crate) fn definitions(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.definitions).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            // JSON, but for comments on lines of their own.
            let text: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let json: Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            found.insert(json["name"].as_str().unwrap().to_owned(), json);
        }
        found
    }

    /// What a Java program says, with the jars at hand.
    pub(crate) fn java(&self, source: &Path) -> String {
        let mut java = Command::new("java");
        java.args(["-cp", "lib/*"]).arg(source).current_dir(&self.home);
        let finished = process::run(java, &self.home, "java", DEADLINE);
        assert!(finished.status.success(), "{}", finished.stderr);
        finished.stdout
    }
}

/// The folder `name` of `target/`, filled by `fetch` unless it was filled for the same `wanted` before.
fn obtain(
    name: &str,
    wanted: &str,
    programs: &[&str],
    required: bool,
    fetch: impl FnOnce(&Path) -> Result<PathBuf, String>,
) -> Option<Fetched> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join(name);
    fs::create_dir_all(&home).unwrap();
    let lock = File::create(home.join(".lock")).unwrap();
    lock.lock().unwrap();
    let stamp = home.join("stamp");
    let stamped = fs::read_to_string(&stamp).unwrap_or_default();
    if let Some(definitions) = stamped.strip_prefix(wanted) {
        return Some(Fetched { home, definitions: PathBuf::from(definitions) });
    }
    let absent = programs.iter().find(|program| !starts(program));
    let fetched = match absent {
        Some(program) => Err(format!("`{program}` does not start")),
        None => fetch(&home),
    };
    match fetched {
        Ok(definitions) => {
            fs::write(stamp, format!("{wanted}{}", definitions.display())).unwrap();
            Some(Fetched { home, definitions })
        }
        Err(why) if required => panic!("FLOODMARK_REQUIRE_JAVA=1, but {name} cannot be had: {why}"),
        Err(why) => {
            // `eprintln!` would be hidden by the test harness while tests pass.
            std::io::stderr().write_all(format!("SKIPPED: {name}: {why}\n").as_bytes()).unwrap();
            None
        }
    }
}

fn starts(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn run(command: &mut Command, home: &Path, name: &str) -> Result<(), String> {
    let mut taken = Command::new(command.get_program());
    taken.args(command.get_args()).current_dir(home);
    let finished = process::run(taken, home, name, DEADLINE);
    if finished.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}{}", finished.stdout, finished.stderr))
}
