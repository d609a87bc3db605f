//! What became of a partition that `floodmark log recover` looked at, for people and for programs.

use std::io;
use std::path::{Path, PathBuf};

use floodmark_proto::ids::Offset;
use floodmark_storage::log::recovery::{RecoveryReport, TailDamage};
use floodmark_storage::log::salvage::SalvagePlan;
use serde_json::json;

use crate::output::{Format, Sink};

/// One partition.
pub(super) struct Recovered {
    dir: PathBuf,
    is_dry_run: bool,
    /// Damage in the durable part, and whether it was set aside.
    pub(super) damage: Option<(SalvagePlan, bool)>,
    /// It was left damaged, because nobody has said to give anything up.
    pub(super) is_refused: bool,
    /// `None` where the log was not opened.
    pub(super) ended: Option<Ended>,
}

/// A log that was opened and closed.
pub(super) struct Ended {
    pub(super) report: RecoveryReport,
    pub(super) start: Offset,
    pub(super) end: Offset,
    /// The start that Kafka had noted, where the log took it over.
    pub(super) start_of_kafka: Option<Offset>,
}

/// Of all partitions.
#[derive(Debug, Default)]
pub(super) struct Totals {
    partitions: u64,
    damaged: u64,
}

impl Totals {
    pub(super) fn count(&mut self, recovered: &Recovered) {
        self.partitions += 1;
        self.damaged += u64::from(recovered.is_refused);
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.damaged > 0
    }

    /// People have seen it line by line.
    pub(super) fn tell(&self, format: Format, sink: &mut Sink) -> io::Result<()> {
        match format {
            Format::Table => Ok(()),
            Format::Json => sink.json(&json!({
                "kind": "summary",
                "partitions": self.partitions,
                "left_damaged": self.damaged,
            })),
        }
    }
}

impl Recovered {
    pub(super) fn new(dir: &Path, is_dry_run: bool) -> Recovered {
        Recovered { dir: dir.to_owned(), is_dry_run, damage: None, is_refused: false, ended: None }
    }

    pub(super) fn tell(&self, format: Format, sink: &mut Sink) -> io::Result<()> {
        match format {
            Format::Json => sink.json(&self.object()),
            Format::Table => self.lines().iter().try_for_each(|line| sink.line(line)),
        }
    }

    fn object(&self) -> serde_json::Value {
        let damage = self.damage.as_ref().map(|(plan, is_given_up)| {
            let parts = plan.set_aside.iter().map(|part| {
                json!({ "from": part.from, "from_byte": part.from_byte, "bytes": part.bytes, "to": part.to })
            });
            json!({
                "file": plan.path,
                "byte": plan.position,
                "reason": plan.reason,
                "lost_offsets": plan.lost_offsets(),
                "lost_from_offset": plan.end.0,
                "lost_to_offset": plan.known_end.0,
                "good_batches_lost": plan.batches_behind,
                "is_given_up": is_given_up,
                "set_aside": parts.collect::<Vec<_>>(),
            })
        });
        let report = self.ended.as_ref().map(|ended| &ended.report);
        json!({
            "kind": "partition",
            "dir": self.dir,
            "is_dry_run": self.is_dry_run,
            "is_left_damaged": self.is_refused,
            "damage": damage,
            "was_closed_cleanly": report.map(|r| r.was_clean),
            "scanned_bytes": report.map(|r| r.scanned_bytes),
            "cut_bytes": report.map(|r| r.cut_bytes),
            "damage_behind_recovery_point": report.map(|r| r.damage.iter().map(damage_object).collect::<Vec<_>>()),
            "cut_reason": report.and_then(|r| r.cut_reason.as_deref()),
            "producers_replayed_from": report.and_then(|r| r.producers_replayed_from).map(|o| o.0),
            "rebuilt": report.map(|r| &r.rebuilt),
            "start_taken_from_kafka": self.ended.as_ref().and_then(|e| e.start_of_kafka).map(|o| o.0),
            "start_offset": self.ended.as_ref().map(|e| e.start.0),
            "end_offset": self.ended.as_ref().map(|e| e.end.0),
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.dir.display().to_string()];
        if let Some((plan, is_given_up)) = &self.damage {
            tell_loss(plan, *is_given_up, &mut lines);
        }
        if self.is_refused {
            lines.push("  left as it is. Take the partition from another broker if there is one; else --accept-loss gives these up".to_owned());
        }
        if let Some(ended) = &self.ended {
            tell_report(&ended.report, self.is_dry_run, &mut lines);
            if let Some(start) = ended.start_of_kafka {
                lines.push(format!(
                    "  records before offset {start} were deleted in Kafka, so the log starts there"
                ));
            }
            lines.push(format!("  the log holds offsets {} to {} (exclusive)", ended.start, ended.end));
        }
        if self.is_dry_run && !self.is_refused {
            lines.push("  dry run: nothing was changed".to_owned());
        }
        lines
    }
}

fn tell_loss(plan: &SalvagePlan, is_given_up: bool, lines: &mut Vec<String>) {
    lines.push(format!("  damaged: {} at byte {}: {}", plan.path.display(), plan.position, plan.reason));
    let verb = if is_given_up { "lost" } else { "would be lost" };
    lines.push(format!(
        "  {verb}: {} offsets, {} to {} (exclusive), among them {} batches that are good themselves",
        plan.lost_offsets(),
        plan.end,
        plan.known_end,
        plan.batches_behind
    ));
    let verb = if is_given_up { "set aside" } else { "would be set aside" };
    for part in &plan.set_aside {
        lines.push(format!(
            "  {verb}: {} bytes of {} from byte {} on, as {}",
            part.bytes,
            part.from.display(),
            part.from_byte,
            part.to.display()
        ));
    }
}

fn damage_object(damage: &TailDamage) -> serde_json::Value {
    let part = damage.set_aside.as_ref().map(
        |part| json!({ "from": part.from, "from_byte": part.from_byte, "bytes": part.bytes, "to": part.to }),
    );
    json!({
        "file": damage.path,
        "byte": damage.position,
        "reason": damage.reason,
        "end_offset": damage.end.0,
        "set_aside": part,
    })
}

fn tell_report(report: &RecoveryReport, is_dry_run: bool, lines: &mut Vec<String>) {
    if report.was_clean {
        lines.push("  was closed cleanly; there was nothing to do".to_owned());
        return;
    }
    let done = if is_dry_run { "would be" } else { "were" };
    lines.push(format!("  {} bytes behind the recovery point {done} read and checked", report.scanned_bytes));
    for damage in &report.damage {
        lines.push(format!(
            "  damaged: {} at byte {}: {}; the log ends at offset {}",
            damage.path.display(),
            damage.position,
            damage.reason,
            damage.end
        ));
        if let Some(part) = &damage.set_aside {
            lines.push(format!(
                "  {done} set aside: {} bytes of {} from byte {} on, good batches among them, as {}",
                part.bytes,
                part.from.display(),
                part.from_byte,
                part.to.display()
            ));
        }
    }
    if report.cut_bytes > 0 {
        let reason = report.cut_reason.as_deref().unwrap_or("no batch");
        lines.push(format!("  {} bytes of unfinished writes {done} cut off: {reason}", report.cut_bytes));
    }
    if let Some(from) = report.producers_replayed_from {
        lines.push(format!("  producer state {done} replayed from offset {from} on"));
    }
    let done = if is_dry_run { "would be rebuilt" } else { "rebuilt" };
    lines.extend(report.rebuilt.iter().map(|path| format!("  {done}: {}", path.display())));
}
