//! How far a replay is, in a file that is whole whenever it is looked at.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use floodmark_client::TopicId;
use floodmark_client::replay::Span;
use serde::{Deserialize, Serialize};

use super::ReplayArgs;
use crate::cmd::consume::IsolationArg;

/// The one before had no ids of topics; it is read, and what it does not say is not checked.
const VERSION: u32 = 2;
const VERSION_MIN: u32 = 1;

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checkpoint {
    version: u32,
    topic: String,
    #[serde(default, with = "topic_id", skip_serializing_if = "Option::is_none")]
    topic_id: Option<TopicId>,
    key: Option<String>,
    filter: Option<String>,
    is_committed: bool,
    pub(super) target: Target,
    left: Vec<Left>,
}

/// Where records go, and how much of it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Target {
    Topic {
        name: String,
        /// Of the copy.
        id: String,
        offsets: Vec<i64>,
        #[serde(default, with = "topic_id", skip_serializing_if = "Option::is_none")]
        topic_id: Option<TopicId>,
    },
    File {
        path: PathBuf,
        bytes: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Left {
    partition: i32,
    from: i64,
    to: i64,
}

impl Checkpoint {
    pub(super) fn of(
        args: &ReplayArgs,
        topic_id: Option<TopicId>,
        left: Vec<Span>,
        target: Target,
    ) -> Checkpoint {
        Checkpoint {
            version: VERSION,
            topic: args.topic.clone(),
            topic_id,
            key: args.key.clone(),
            filter: args.filter.clone(),
            is_committed: args.isolation == IsolationArg::Committed,
            target,
            left: left.into_iter().map(|s| Left { partition: s.partition, from: s.from, to: s.to }).collect(),
        }
    }

    /// What is not known to be done.
    pub(super) fn spans(&self) -> Vec<Span> {
        let span = |left: &Left| Span { partition: left.partition, from: left.from, to: left.to };
        self.left.iter().map(span).collect()
    }

    /// Fails where it belongs to another command.
    pub(super) fn check(&self, args: &ReplayArgs) -> anyhow::Result<()> {
        let same_target = match &self.target {
            Target::Topic { name, .. } => args.into.as_ref() == Some(name),
            Target::File { path, .. } => args.file.as_ref() == Some(path),
        };
        for (what, is_same) in [
            ("topic", self.topic == args.topic),
            ("target", same_target),
            ("key", self.key == args.key),
            ("filter", self.filter == args.filter),
            ("isolation", self.is_committed == (args.isolation == IsolationArg::Committed)),
        ] {
            if !is_same {
                bail!(
                    "the checkpoint belongs to a replay with another {what}; remove the file to begin anew, or name another"
                );
            }
        }
        Ok(())
    }

    /// Fails where one of the topics is not the one that it was: what the checkpoint, the file at `path`, says of offsets is then said of
    /// other records.
    pub(super) fn check_topics(
        &self,
        path: &Path,
        source: Option<TopicId>,
        target: Option<TopicId>,
    ) -> anyhow::Result<()> {
        let is_other = |kept: Option<TopicId>, found: Option<TopicId>| {
            kept.zip(found).is_some_and(|(kept, found)| kept != found)
        };
        let job = path.display();
        if is_other(self.topic_id, source) {
            let (what, stays) = match &self.target {
                Target::Topic { name, .. } => {
                    (String::new(), format!("; what it has copied stays in {name}"))
                }
                Target::File { path, .. } => (format!(" and {}", path.display()), String::new()),
            };
            bail!(
                "topic {} was deleted and made anew since {job} was written, so that its offsets are those of other records; to begin anew, remove {job}{what}{stays}",
                self.topic
            );
        }
        if let Target::Topic { name, topic_id, .. } = &self.target
            && is_other(*topic_id, target)
        {
            bail!(
                "topic {name} was deleted and made anew since {job} was written, so that what was copied is gone; to copy all of it again, remove {job}"
            );
        }
        Ok(())
    }

    /// `None` where there is none.
    pub(super) fn read(path: &Path) -> anyhow::Result<Option<Checkpoint>> {
        let bytes = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
        };
        let wrong = || format!("{} is no checkpoint of a replay", path.display());
        let checkpoint: Checkpoint = serde_json::from_str(&bytes).with_context(wrong)?;
        if !(VERSION_MIN..=VERSION).contains(&checkpoint.version) {
            bail!(
                "{} is of version {}; this program knows {VERSION_MIN} to {VERSION}",
                path.display(),
                checkpoint.version
            );
        }
        Ok(Some(checkpoint))
    }

    /// On the disk when it returns: either this one or the one before is there after a crash.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let aside = path.with_added_extension("new");
        let write = || -> io::Result<()> {
            let mut file = create(&aside)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            replace(&aside, path)?;
            sync_entry(path)
        };
        write().with_context(|| format!("the checkpoint {} cannot be written", path.display()))
    }
}

/// The file is found under its name after a crash.
pub(super) fn sync_entry(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    open(dir)?.sync_all()
}

/// An id as Kafka's tools show it.
mod topic_id {
    use floodmark_client::TopicId;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(id: &Option<TopicId>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(id),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<TopicId>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
    }
}

#[expect(clippy::disallowed_methods, reason = "a file of whoever runs the command, not of a broker")]
fn create(path: &Path) -> io::Result<File> {
    File::create(path)
}

#[expect(clippy::disallowed_methods, reason = "a file of whoever runs the command, not of a broker")]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[expect(clippy::disallowed_methods, reason = "a file of whoever runs the command, not of a broker")]
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(last: u8) -> TopicId {
        TopicId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]).unwrap()
    }

    #[test]
    fn one_without_ids_is_read_and_holds_for_any_topic_of_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job");
        let text = r#"{"version": 1, "topic": "t", "key": null, "filter": null, "is_committed": false,
            "target": {"topic": {"name": "u", "id": "7", "offsets": [3]}}, "left": []}"#;
        create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        let mut checkpoint = Checkpoint::read(&path).unwrap().unwrap();
        checkpoint.check_topics(&path, Some(id(2)), Some(id(3))).unwrap();
        checkpoint.topic_id = Some(id(4));
        checkpoint.check_topics(&path, Some(id(4)), Some(id(3))).unwrap();
        let error = checkpoint.check_topics(&path, Some(id(2)), Some(id(3))).unwrap_err().to_string();
        assert!(error.contains("topic t was deleted") && error.contains("remove"), "{error}");
        create(&path).unwrap().write_all(text.replace("1,", "3,").as_bytes()).unwrap();
        let error = Checkpoint::read(&path).unwrap_err().to_string();
        assert!(error.contains("version 3"), "{error}");
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_written_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job");
        assert!(Checkpoint::read(&path).unwrap().is_none());
        let checkpoint = Checkpoint {
            version: VERSION,
            topic: "t".to_owned(),
            topic_id: Some(id(2)),
            key: None,
            filter: Some("true".to_owned()),
            is_committed: false,
            target: Target::Topic {
                name: "u".to_owned(),
                id: "7".to_owned(),
                offsets: vec![3, 4],
                topic_id: Some(id(3)),
            },
            left: vec![Left { partition: 1, from: 2, to: 9 }],
        };
        for _ in 0..2 {
            checkpoint.write(&path).unwrap();
            assert_eq!(Checkpoint::read(&path).unwrap(), Some(checkpoint.clone()));
        }
        assert_eq!(checkpoint.spans(), [Span { partition: 1, from: 2, to: 9 }]);
        for text in ["", "{}", "[]"] {
            create(&path).unwrap().write_all(text.as_bytes()).unwrap();
            assert!(
                format!("{:#}", Checkpoint::read(&path).unwrap_err()).contains("no checkpoint"),
                "{text}"
            );
        }
    }
}
