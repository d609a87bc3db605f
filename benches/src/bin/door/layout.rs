//! How much of what a broker calls until it is at rest lies in one place of its program (`tools/layout`): a list that the linker takes by
//! name finds nothing, and says nothing, once the names are others.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Context as _;
use floodmark_benches::report::{Aim, Report};

const LIST: &str = include_str!("../../../../tools/layout/startup.txt");
/// What the list says of itself: the size of all that is called, in the build that it was taken of.
const BYTES: &str = "# bytes: ";
/// As the linker is told to name it (tools/build.rs).
const PLACE: &str = ".text.startup_first";
/// Builds differ in what is inlined.
const SHARE_MIN: f64 = 0.9;

/// Adds what is found to the report.
pub(crate) fn report(report: &mut Report, program: &Path) -> anyhow::Result<()> {
    let listed = LIST.lines().find_map(|line| line.strip_prefix(BYTES)).context("the list has no size")?;
    let listed: u64 = listed.parse()?;
    let found =
        section_bytes(program, PLACE).with_context(|| format!("{} is no program", program.display()))?;
    report.value(
        "functions called until at rest: found by the linker",
        Aim::AtLeast(SHARE_MIN),
        found.unwrap_or(0) as f64 / listed as f64,
        format!("of {} KiB", listed >> 10),
    );
    Ok(())
}

/// The size of a section of a 64-bit ELF file of this machine's byte order; `None` where it has no such section.
fn section_bytes(program: &Path, wanted: &str) -> anyhow::Result<Option<u64>> {
    let file = File::open(program)?;
    let number = |at: u64, size: usize| -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes[..size], at)?;
        Ok(u64::from_le_bytes(bytes))
    };
    anyhow::ensure!(number(0, 5)? == u64::from_le_bytes(*b"\x7fELF\x02\0\0\0"), "not a 64-bit ELF file");
    let (headers, size, count) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?);
    let header = |n: u64| headers + n * size;
    let names = number(header(number(0x3e, 2)?) + 0x18, 8)?;
    for n in 0..count {
        let mut name = vec![0; wanted.len() + 1];
        // The last name of the table may be shorter than this one, with nothing behind it.
        let is_read = file.read_exact_at(&mut name, names + number(header(n), 4)?).is_ok();
        if is_read && name.strip_suffix(b"\0") == Some(wanted.as_bytes()) {
            return Ok(Some(number(header(n) + 0x20, 8)?));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

    use super::*;

    #[test]
    fn a_section_is_found_by_its_whole_name() {
        let this = std::env::current_exe().unwrap();
        assert!(section_bytes(&this, ".text").unwrap().unwrap() > 0);
        assert_eq!(section_bytes(&this, ".tex").unwrap(), None);
        assert!(section_bytes(Path::new("/proc/self/maps"), ".text").is_err());
    }

    #[test]
    fn the_list_says_its_size() {
        let mut report = Report::new("");
        super::report(&mut report, &std::env::current_exe().unwrap()).unwrap();
    }
}
