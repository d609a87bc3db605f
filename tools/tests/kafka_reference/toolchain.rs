//! Fetches Kafka's jars with Maven, once for a target directory, and starts Java with them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::process;

pub(crate) const VERSION: &str = "4.3.1";
const POM: &str = include_str!("pom.xml");
const FETCH_DEADLINE: Duration = Duration::from_secs(600);

/// Kafka's jars.
pub(crate) struct Kafka {
    /// `target/kafka-<version>`.
    home: PathBuf,
}

impl Kafka {
    /// The jars, fetched unless they are there already. `None` where that cannot be; a panic instead where
    /// `FLOODMARK_REQUIRE_JAVA=1`.
    pub(crate) fn obtain() -> Option<Kafka> {
        match Kafka::try_obtain() {
            Ok(kafka) => Some(kafka),
            Err(why) if std::env::var("FLOODMARK_REQUIRE_JAVA").is_ok_and(|v| v == "1") => {
                panic!("FLOODMARK_REQUIRE_JAVA=1, but Kafka cannot be run: {why}")
            }
            Err(why) => {
                // `eprintln!` would be hidden by the test harness while tests pass.
                let message = format!("SKIPPED: interop with Kafka {VERSION}: {why}\n");
                io::stderr().write_all(message.as_bytes()).unwrap();
                None
            }
        }
    }

    /// The jars, or why there are none.
    pub(crate) fn try_obtain() -> Result<Kafka, String> {
        for (program, version) in [("java", "-version"), ("javac", "-version"), ("mvn", "-version")] {
            let mut command = Command::new(program);
            command.arg(version).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if !command.status().is_ok_and(|status| status.success()) {
                return Err(format!(
                    "`{program} {version}` fails; install a JDK of version 17 or newer, and Maven"
                ));
            }
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let kafka = Kafka { home: target.join(format!("kafka-{VERSION}")) };
        fs::create_dir_all(&kafka.home).unwrap();
        let _lock = lock(&kafka.home.join(".lock"));
        // The pom is kept beside the jars it named: another pom, other jars.
        if process::read(&kafka.stamp()) != POM {
            kafka.fetch()?;
        }
        Ok(kafka)
    }

    fn fetch(&self) -> Result<(), String> {
        let pom = self.home.join("wanted.xml");
        fs::write(&pom, POM).unwrap();
        if self.lib().exists() {
            fs::remove_dir_all(self.lib()).unwrap();
        }
        let mut command = Command::new("mvn");
        command.args(["-B", "-q", "-f"]).arg(&pom).arg("dependency:copy-dependencies");
        command.arg(format!("-DoutputDirectory={}", self.lib().display())).arg("-DincludeScope=runtime");
        let finished = process::run(command, &self.home, "mvn", FETCH_DEADLINE);
        if !finished.status.success() {
            return Err(format!("Maven cannot fetch it: {}{}", finished.stdout, finished.stderr));
        }
        let broker = self.lib().join(format!("kafka_2.13-{VERSION}.jar"));
        assert!(
            broker.exists(),
            "pom.xml names another version than {VERSION}: {} is missing",
            broker.display()
        );
        fs::rename(pom, self.stamp()).unwrap();
        Ok(())
    }

    fn lib(&self) -> PathBuf {
        self.home.join("lib")
    }

    fn stamp(&self) -> PathBuf {
        self.home.join("pom.xml")
    }

    /// Pattern of all jars, as Java takes it.
    pub(crate) fn class_path(&self) -> PathBuf {
        self.lib().join("*")
    }

    /// `java` with the jars on its class path; the main class or source file comes next. Set up for short runs.
    pub(crate) fn java(&self) -> Command {
        self.java_with(&self.home)
    }

    /// The same with the classes in `classes`, too.
    pub(crate) fn java_with(&self, classes: &Path) -> Command {
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-Djava.awt.headless=true"]);
        command.arg("-cp").arg(format!("{}:{}", classes.display(), self.class_path().display()));
        command
    }

    /// Where short runs leave their output.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }
}

/// The exclusive lock on `path`, which is made; blocks until others let go of it. Held until dropped.
pub(crate) fn lock(path: &Path) -> File {
    let file = File::create(path).unwrap();
    file.lock().unwrap();
    file
}
