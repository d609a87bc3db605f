//! The screen of `floodmark top` without a terminal: samples and keys in, what is drawn out.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::screen::draw;
use super::view::{Asked, GroupSample, Sample, TopicSample, View};

fn topic(name: &str, committed_end: i64, size_bytes: u64) -> TopicSample {
    TopicSample {
        name: name.to_owned(),
        partitions: 3,
        offline: 0,
        records: committed_end as u64,
        committed_end,
        size_bytes,
    }
}

fn group(name: &str, committed: i64, lag: u64) -> GroupSample {
    GroupSample { name: name.to_owned(), state: "Stable".to_owned(), members: 2, committed, lag }
}

fn sample(second: u64, topics: Vec<TopicSample>, groups: Vec<GroupSample>) -> Sample {
    Sample { at: Duration::from_secs(second), brokers: 1, topics, groups, gaps: None }
}

/// Two samples, two seconds apart.
fn busy() -> View {
    let mut view = View::new("127.0.0.1:9093".to_owned());
    view.on_sample(sample(
        0,
        vec![topic("orders", 1_000, 10 << 20), topic("audit", 5, 100), topic("clicks", 0, 0)],
        vec![group("billing", 900, 100), group("search", 10, 995)],
    ));
    view.on_sample(sample(
        2,
        vec![topic("orders", 3_000, 12 << 20), topic("audit", 5, 50), topic("clicks", 20_000, 5 << 10)],
        vec![group("billing", 1_500, 1_500), group("search", 5, 3_000)],
    ));
    view
}

fn press(view: &mut View, keys: &[KeyCode]) -> Asked {
    let mut asked = Asked::Nothing;
    for key in keys {
        asked = view.on_key(KeyEvent::new(*key, KeyModifiers::NONE));
    }
    asked
}

fn drawn(view: &View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(view, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    (0..height)
        .map(|y| {
            let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
            line.trim_end().to_owned()
        })
        .collect()
}

fn topics(view: &View) -> Vec<String> {
    view.topics().into_iter().map(|row| row.topic).collect()
}

fn groups(view: &View) -> Vec<String> {
    view.groups().into_iter().map(|row| row.group).collect()
}

#[test]
fn rates_are_between_two_samples() {
    let view = busy();
    let rates: Vec<(String, f64, f64)> =
        view.topics().into_iter().map(|t| (t.topic, t.records_per_second, t.bytes_per_second)).collect();
    assert_eq!(
        rates,
        [
            ("clicks".to_owned(), 10_000.0, 2_560.0),
            ("orders".to_owned(), 1_000.0, f64::from(1 << 20)),
            // What was deleted is no rate below zero.
            ("audit".to_owned(), 0.0, 0.0),
        ]
    );
    let rates: Vec<(String, u64, f64)> =
        view.groups().into_iter().map(|g| (g.group, g.lag, g.records_per_second)).collect();
    assert_eq!(rates, [("search".to_owned(), 3_000, 0.0), ("billing".to_owned(), 1_500, 300.0)]);
}

#[test]
fn one_sample_and_a_new_topic_have_no_rate() {
    let mut view = View::new(String::new());
    view.on_sample(sample(0, vec![topic("a", 1_000, 1)], vec![]));
    assert_eq!(view.topics()[0].records_per_second, 0.0);
    view.on_sample(sample(1, vec![topic("a", 1_000, 1), topic("b", 9_000, 1)], vec![]));
    assert!(view.topics().iter().all(|topic| topic.records_per_second == 0.0));
}

#[test]
fn keys_sort_either_list() {
    let mut view = busy();
    assert_eq!(topics(&view), ["clicks", "orders", "audit"]);
    press(&mut view, &[KeyCode::Char('s')]);
    assert_eq!(topics(&view), ["orders", "clicks", "audit"], "by bytes per second");
    press(&mut view, &[KeyCode::Char('s')]);
    assert_eq!(topics(&view), ["audit", "clicks", "orders"], "by name, from A on");
    press(&mut view, &[KeyCode::Char('r')]);
    assert_eq!(topics(&view), ["orders", "clicks", "audit"]);
    press(&mut view, &[KeyCode::Char('S'), KeyCode::Char('S'), KeyCode::Char('S')]);
    assert_eq!(topics(&view), ["orders", "clicks", "audit"], "by size");
    assert_eq!(groups(&view), ["search", "billing"]);
    press(&mut view, &[KeyCode::Tab, KeyCode::Char('r')]);
    assert_eq!(groups(&view), ["billing", "search"], "least lag first");
    assert_eq!(topics(&view), ["orders", "clicks", "audit"], "the other list stays");
}

#[test]
fn a_pause_keeps_what_is_shown() {
    let mut view = busy();
    press(&mut view, &[KeyCode::Char('p')]);
    let shown = view.topics();
    view.on_sample(sample(9, vec![topic("orders", 90_000, 1)], vec![]));
    assert_eq!(view.topics(), shown);
    assert!(drawn(&view, 100, 20)[0].contains("PAUSED"));
    press(&mut view, &[KeyCode::Char(' ')]);
    view.on_sample(sample(12, vec![topic("orders", 9_000, 1)], vec![]));
    // Over the ten seconds since the last sample that was kept.
    assert_eq!(view.topics()[0].records_per_second, 600.0);
}

#[test]
fn keys_quit_and_help() {
    let mut view = busy();
    assert_eq!(press(&mut view, &[KeyCode::Char('x'), KeyCode::Down]), Asked::Nothing);
    assert_eq!(press(&mut view, &[KeyCode::Char('q')]), Asked::Quit);
    assert_eq!(press(&mut view, &[KeyCode::Char('?')]), Asked::Nothing);
    assert!(drawn(&view, 100, 20).iter().any(|line| line.contains("turn the order around")));
    assert_eq!(press(&mut view, &[KeyCode::Esc]), Asked::Nothing, "it closes the help first");
    assert_eq!(press(&mut view, &[KeyCode::Esc]), Asked::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.on_key(control_c), Asked::Quit);
}

#[test]
fn the_screen_shows_topics_rates_groups_and_lag() {
    let lines = drawn(&busy(), 100, 14);
    assert_eq!(lines[0], "floodmark top 127.0.0.1:9093  1 broker  11,000 records/s  1.0 MiB/s");
    assert!(lines[1].starts_with(" topics: 3 ─"), "{}", lines[1]);
    assert!(lines[2].starts_with("topic ") && lines[2].contains("records/s▼"), "{}", lines[2]);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert_eq!(words(&lines[3]), "clicks 3 20,000 5.0 KiB 10,000 2.5 KiB");
    assert_eq!(words(&lines[4]), "orders 3 3,000 12.0 MiB 1,000 1.0 MiB");
    let at = lines.iter().position(|line| line.starts_with(" groups: 2 ─")).unwrap();
    assert!(lines[at + 1].contains("lag▼"), "{}", lines[at + 1]);
    assert_eq!(words(&lines[at + 2]), "search Stable 2 3,000 0");
    assert_eq!(words(&lines[at + 3]), "billing Stable 2 1,500 300");
    assert!(lines[13].starts_with("q quit"), "{}", lines[13]);
    // Numbers stand under each other.
    assert_eq!(lines[3].find("2.5 KiB").map(|n| n + 7), lines[4].find("1.0 MiB").map(|n| n + 7));
}

#[test]
fn trouble_is_shown_and_goes_away() {
    let mut view = View::new("h:1".to_owned());
    assert!(drawn(&view, 80, 12)[0].contains("waiting for the first answer"));
    view.on_failure("cannot reach h:1".to_owned());
    assert_eq!(drawn(&view, 80, 12)[11], "stale: cannot reach h:1");
    assert!(view.on_silence(Duration::from_millis(2_100)));
    assert_eq!(drawn(&view, 80, 12)[11], "stale: no answer for 2 s: cannot reach h:1");
    assert!(!view.on_silence(Duration::from_millis(2_900)), "it shows the same");
    assert!(view.on_silence(Duration::from_millis(3_000)));
    let offline = TopicSample { offline: 1, ..topic("a", 1, 1) };
    view.on_sample(Sample {
        gaps: Some("offsets of a-0: no leader".to_owned()),
        ..sample(1, vec![offline], vec![])
    });
    let lines = drawn(&view, 100, 12);
    assert_eq!(lines[11], "incomplete: offsets of a-0: no leader");
    assert!(lines[3].contains("3 (1 offline)"), "{}", lines[3]);
}

#[test]
fn long_lists_scroll_and_small_terminals_are_drawn() {
    let mut view = View::new(String::new());
    let many = (0..50).map(|n| topic(&format!("t{n:02}"), 0, 0)).collect();
    view.on_sample(sample(0, many, vec![group("g", 0, 0)]));
    assert!(drawn(&view, 100, 20)[3].starts_with("t00"));
    press(&mut view, &[KeyCode::PageDown, KeyCode::Down]);
    assert!(drawn(&view, 100, 20)[3].starts_with("t11"));
    press(&mut view, &[KeyCode::End]);
    assert!(drawn(&view, 100, 20)[3].starts_with("t49"));
    press(&mut view, &[KeyCode::Down, KeyCode::Home]);
    assert!(drawn(&view, 100, 20)[3].starts_with("t00"));
    press(&mut view, &[KeyCode::Char('?')]);
    for (width, height) in [(1, 1), (10, 3), (40, 6), (300, 2)] {
        drawn(&view, width, height);
    }
}
